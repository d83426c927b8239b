//! A simulation as a chart: one file without anything from outside, readable in light and dark.

use super::date;
use crate::report::{bytes, clean};
use crate::simulate::{PolicyTrack, Simulation};

const WIDTH: usize = 960;
/// Where the plots begin and end.
const LEFT: usize = 90;
const RIGHT: usize = 940;
/// The height of one plot, and from one to the next.
const PLOT: usize = 200;
const STEP: usize = 270;
const TOP: usize = 70;
/// A mark on an axis for about so many.
const MARKS: usize = 4;
const DATES: usize = 6;
/// The most points of a line: no screen shows more.
const POINTS: usize = 480;
/// Colours that are told apart in light and dark; after them, dashes tell lines apart.
const COLOURS: usize = 6;
const DASHES: [&str; 3] = ["", "7 3", "2 3"];
const LEGEND_ROW: usize = 20;
const LEGEND_COLUMNS: usize = 3;
const LEGEND_TEXT_MAX: usize = 34;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .note { fill: #57606a; }
  .back { fill: #ffffff; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .before { opacity: 0.45; stroke-width: 1.5; }
  .c0 { stroke: #0969da; } .c1 { stroke: #cf222e; } .c2 { stroke: #1a7f37; }
  .c3 { stroke: #8250df; } .c4 { stroke: #bc4c00; } .c5 { stroke: #6e7781; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .note { fill: #9198a1; } .back { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .c0 { stroke: #58a6ff; } .c1 { stroke: #ff7b72; } .c2 { stroke: #3fb950; }
    .c3 { stroke: #bc8cff; } .c4 { stroke: #f0883e; } .c5 { stroke: #9198a1; }
  }
";

/// A figure day by day, and how it is called.
struct Line<'a> {
    values: &'a [u64],
    /// Its position in the legend: what colour and dashes follow from.
    place: usize,
    is_before: bool,
}

/// The chart of a simulation: READY restore points and stored bytes, one line per policy; with a base,
/// its lines in the background.
pub fn chart(simulation: &Simulation, base: Option<(&str, &Simulation)>) -> String {
    let policies: Vec<&PolicyTrack> = simulation.policies.iter().collect();
    let rows = (policies.len() + usize::from(base.is_some())).div_ceil(LEGEND_COLUMNS);
    let legend_top = TOP + 2 * STEP;
    let height = legend_top + rows * LEGEND_ROW + 20;
    let title = format!(
        "{} days of {} {}",
        simulation.days,
        policies.len(),
        if policies.len() == 1 { "policy" } else { "policies" }
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-labelledby=\"title\">\n\
         <title id=\"title\">{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
    );
    text(&mut svg, (20, 26), "title", "start", &title);
    let note = format!(
        "from {} to {}, {} of the captures fail, growth {} a month",
        date(simulation.start, 0),
        date(simulation.start, simulation.days as usize),
        simulation.fail_rate,
        simulation.growth
    );
    text(&mut svg, (20, 44), "note", "start", &note);
    let lines = |of: fn(&PolicyTrack) -> &[u64]| {
        let mut lines = Vec::new();
        let before = base.iter().flat_map(|(_, before)| &before.policies);
        for policy in before {
            let place = policies.iter().position(|other| other.policy == policy.policy);
            let place = place.unwrap_or(COLOURS - 1);
            lines.push(Line { values: of(policy), place, is_before: true });
        }
        for (place, policy) in policies.iter().enumerate() {
            lines.push(Line { values: of(policy), place, is_before: false });
        }
        lines
    };
    let days = simulation.days as usize;
    let ready = lines(|policy| &policy.track.ready);
    let stored = lines(|policy| &policy.track.stored_bytes);
    let dates: Vec<(usize, String)> = (0..=DATES)
        .map(|mark| days * mark / DATES)
        .map(|day| (day, date(simulation.start, day)))
        .collect();
    plot(&mut svg, TOP, "ready restore points", &ready, (days, &dates), |value| value.to_string());
    plot(&mut svg, TOP + STEP, "stored bytes", &stored, (days, &dates), bytes);
    legend(&mut svg, legend_top, &policies, base.map(|(name, _)| name));
    svg.push_str("</svg>\n");
    svg
}

fn plot(
    svg: &mut String,
    top: usize,
    label: &str,
    lines: &[Line<'_>],
    (days, dates): (usize, &[(usize, String)]),
    unit: impl Fn(u64) -> String,
) {
    let most = lines.iter().flat_map(|line| line.values).copied().max().unwrap_or(0);
    let (mark, marks) = scale(most, label == "stored bytes");
    let full = mark * marks;
    let bottom = top + PLOT;
    let y = |value: u64| {
        let part = u128::from(value.min(full)) * PLOT as u128 * 10 / u128::from(full.max(1));
        bottom * 10 - usize::try_from(part).unwrap_or(0)
    };
    let x = |day: usize| LEFT * 10 + (RIGHT - LEFT) * 10 * day / days.max(1);
    text(svg, (LEFT, top - 8), "", "start", label);
    for number in 0..=marks {
        let at = y(mark * number);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{0}\" y2=\"{0}\"/>\n",
            tenth(at)
        ));
        text(svg, (LEFT - 8, at / 10 + 4), "note", "end", &unit(mark * number));
    }
    for (day, date) in dates {
        let anchor = match *day {
            0 => "start",
            day if day == days => "end",
            _ => "middle",
        };
        text(svg, (x(*day) / 10, bottom + 18), "note", anchor, date);
    }
    for line in lines {
        let every = line.values.len().div_ceil(POINTS).max(1);
        let last = line.values.len().saturating_sub(1);
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .filter(|(day, _)| day % every == 0 || *day == last)
            .map(|(day, value)| format!("{},{}", tenth(x(day)), tenth(y(*value))))
            .collect();
        let before = if line.is_before { " before" } else { "" };
        svg.push_str(&format!(
            "<polyline class=\"line c{}{before}\" stroke-dasharray=\"{}\" points=\"{}\"/>\n",
            line.place % COLOURS,
            DASHES[line.place / COLOURS % DASHES.len()],
            points.join(" ")
        ));
    }
}

/// Round marks for an axis: how much lies between two, and how many there are.
fn scale(most: u64, is_bytes: bool) -> (u64, u64) {
    let rough = (most / MARKS as u64).max(1);
    let mut unit = 1_u64;
    while is_bytes && rough / unit >= 1024 {
        unit = unit.saturating_mul(1024);
    }
    let mut step = unit;
    let mut factors = [2, 5, 10].iter().cycle();
    let mut base = unit;
    while step < rough {
        let factor = factors.next().copied().unwrap_or(10);
        step = base.saturating_mul(factor);
        if factor == 10 {
            base = step;
        }
    }
    (step, most.div_ceil(step).max(1))
}

fn legend(svg: &mut String, top: usize, policies: &[&PolicyTrack], base: Option<&str>) {
    let width = (RIGHT - LEFT) / LEGEND_COLUMNS;
    let place = |index: usize| {
        (LEFT + index % LEGEND_COLUMNS * width, top + index / LEGEND_COLUMNS * LEGEND_ROW)
    };
    let entry = |svg: &mut String, index: usize, class: &str, dashes: &str, name: &str| {
        let (x, y) = place(index);
        svg.push_str(&format!(
            "<line class=\"line {class}\" stroke-dasharray=\"{dashes}\" x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\n",
            x + 24
        ));
        text(svg, (x + 32, y + 4), "", "start", &shortened(name));
    };
    for (index, policy) in policies.iter().enumerate() {
        let dashes = DASHES[index / COLOURS % DASHES.len()];
        entry(svg, index, &format!("c{}", index % COLOURS), dashes, policy.policy.as_str());
    }
    if let Some(base) = base {
        entry(svg, policies.len(), "c5 before", "", &format!("pale: {base}"));
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LEGEND_TEXT_MAX {
        return name.to_owned();
    }
    name.chars().take(LEGEND_TEXT_MAX - 1).chain(['…']).collect()
}

fn text(svg: &mut String, (x, y): (usize, usize), class: &str, anchor: &str, content: &str) {
    svg.push_str(&format!(
        "<text x=\"{x}\" y=\"{y}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>\n",
        escaped(content)
    ));
}

/// Text that is nothing but text in XML.
fn escaped(text: &str) -> String {
    clean(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Tenths as XML numbers have them.
fn tenth(tenths: usize) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_reach_the_top() {
        for (most, bytes, scale_is) in [
            (0, false, (1, 1)),
            (3, false, (1, 3)),
            (42, false, (10, 5)),
            (43_000, false, (20_000, 3)),
            (5 << 30, true, (2 << 30, 3)),
        ] {
            assert_eq!(scale(most, bytes), scale_is, "{most}");
            let (mark, marks) = scale(most, bytes);
            assert!(mark * marks >= most);
        }
    }

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escaped("<a b=\"c\">&\u{202e}"), "&lt;a b=&quot;c&quot;&gt;&amp;\\u{202e}");
    }
}
