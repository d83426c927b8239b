//! What stored bytes cost a month, by a table of prices.
//!
//! Bytes and a table go in, money comes out. All of it is whole numbers: a sum of a million images is
//! the same in any order. What has no price, and what has no known size, is counted beside the sum
//! and never as zero. This room must not read a configuration: who has one builds [`Prices`].
//!
//! An image is billed for the bytes that it added to its store. Where images share blocks, deleting
//! one may free less than it shows, because later ones may need its blocks: [`MAY_FREE_LESS`] is what
//! people are told beside every sum after deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::{ImageKind, Inventory};
use crate::name::Ownership;
use crate::plan::{Action, Change, Plan};
use crate::policy::select::Patterns;

/// Bytes of a GiB, the unit that prices are for.
const GIB: u128 = 1 << 30;
/// Millionths of a unit of currency in its hundredth.
const MICROS_PER_CENT: u128 = 10_000;

/// What people are told beside a sum after deletes.
pub const MAY_FREE_LESS: &str = "images share blocks: deleting one may free less than it shows, because later images may need its blocks";

/// A table of prices.
#[derive(Debug, Clone)]
pub struct Prices {
    /// What they are in: `USD`.
    pub currency: String,
    /// When they were looked up.
    pub as_of: Date,
    /// The prices; the first that fits an image holds.
    pub rates: Vec<Rate>,
}

/// One price.
#[derive(Debug, Clone)]
pub struct Rate {
    /// The engines it holds for; `None` means every one.
    pub engines: Option<Patterns>,
    /// The locations it holds for; `None` means every one.
    pub locations: Option<Patterns>,
    /// The kind of image it holds for; `None` means every one.
    pub kind: Option<ImageKind>,
    /// Millionths of the currency for a GiB and month.
    pub per_gib_month: u64,
}

impl Prices {
    /// A table.
    pub fn new(currency: impl Into<String>, as_of: Date, rates: Vec<Rate>) -> Self {
        Self { currency: currency.into(), as_of, rates }
    }

    /// Millionths of the currency for a GiB and month of such an image; `None` where no price fits.
    pub fn rate(&self, engine: &str, location: &str, kind: ImageKind) -> Option<u64> {
        let fits = |patterns: &Option<Patterns>, text: &str| {
            patterns.as_ref().is_none_or(|patterns| patterns.matches(text))
        };
        self.rates
            .iter()
            .find(|rate| {
                fits(&rate.engines, engine)
                    && fits(&rate.locations, location)
                    && rate.kind.is_none_or(|of| of == kind)
            })
            .map(|rate| rate.per_gib_month)
    }

    /// The amount as money of this table.
    pub fn money(&self, amount: Amount) -> Money {
        Money { micros: amount.micros(), currency: self.currency.clone() }
    }
}

/// An exact amount for a month, in no currency yet: sums of it lose nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(u128);

impl Amount {
    /// What so many bytes cost at so many millionths for a GiB.
    pub fn of(bytes: u64, per_gib_month: u64) -> Self {
        Self(u128::from(bytes) * u128::from(per_gib_month))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it; nothing, where more is taken away.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Millionths of the currency, rounded to the nearest.
    pub fn micros(self) -> u64 {
        u64::try_from((self.0 + GIB / 2) / GIB).unwrap_or(u64::MAX)
    }
}

/// Money for a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Millionths of the currency.
    pub micros: u64,
    /// The currency.
    pub currency: String,
}

impl fmt::Display for Money {
    /// `12.34 USD/month`, rounded to the nearest hundredth.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = (u128::from(self.micros) + MICROS_PER_CENT / 2) / MICROS_PER_CENT;
        write!(formatter, "{}.{:02} {}/month", cents / 100, cents % 100, self.currency)
    }
}

/// What images cost, and what could not be counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bill {
    /// What those with a price and a size cost.
    pub amount: Amount,
    /// How many these are.
    pub images: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Images that no price fits.
    pub unpriced_images: usize,
    /// Their bytes, as far as they are known.
    pub unpriced_bytes: u64,
    /// Where they are: engine, location and kind.
    pub unpriced: BTreeSet<(String, String, ImageKind)>,
    /// Images whose size their engine does not tell.
    pub unsized_images: usize,
}

impl Bill {
    /// Adds an image.
    pub fn add(
        &mut self,
        prices: &Prices,
        engine: &str,
        location: &str,
        kind: ImageKind,
        bytes: Option<u64>,
    ) {
        match (prices.rate(engine, location, kind), bytes) {
            (Some(rate), Some(bytes)) => {
                self.amount = self.amount.plus(Amount::of(bytes, rate));
                self.images += 1;
                self.bytes = self.bytes.saturating_add(bytes);
            }
            (None, bytes) => {
                self.unpriced_images += 1;
                self.unpriced_bytes = self.unpriced_bytes.saturating_add(bytes.unwrap_or(0));
                self.unpriced.insert((engine.to_owned(), location.to_owned(), kind));
            }
            (Some(_), None) => self.unsized_images += 1,
        }
    }

    /// What is not in the sum, for people; `None` where all of it is.
    pub fn left_out(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.unpriced_images > 0 {
            let places: Vec<String> = self
                .unpriced
                .iter()
                .map(|(engine, location, kind)| format!("{engine}/{location} {}", kind.word()))
                .collect();
            parts.push(format!(
                "{} without a price ({})",
                images(self.unpriced_images),
                places.join(", ")
            ));
        }
        if self.unsized_images > 0 {
            parts.push(format!("{} of unknown size", images(self.unsized_images)));
        }
        (!parts.is_empty()).then(|| format!("not counted: {}", parts.join("; ")))
    }
}

fn images(count: usize) -> String {
    format!("{count} image{}", if count == 1 { "" } else { "s" })
}

/// What the images of ours in an inventory cost.
pub fn of_inventory(prices: &Prices, inventory: &Inventory) -> Bill {
    after(prices, inventory, &[], |_| None)
}

/// What the images of ours cost once a plan is carried out. `size` says how many bytes an image
/// that is to be created will store; what it does not know is counted as of unknown size. A copy stores
/// what its original does.
pub fn after_plan(
    prices: &Prices,
    inventory: &Inventory,
    plan: &Plan,
    size: impl Fn(&Change) -> Option<u64>,
) -> Bill {
    after(prices, inventory, &plan.changes, size)
}

fn after(
    prices: &Prices,
    inventory: &Inventory,
    changes: &[Change],
    size: impl Fn(&Change) -> Option<u64>,
) -> Bill {
    let replaced = |change: &Change| {
        let create = change.create.as_ref().and_then(|create| create.replaces.as_ref());
        let copy = change.copy.as_ref().and_then(|copy| copy.replaces.as_ref());
        Some((change.engine.clone(), create.or(copy)?.id.clone()?))
    };
    let deleted = |change: &Change| {
        let is_delete = change.action == Action::Delete;
        is_delete.then(|| Some((change.engine.clone(), change.image.id.clone()?))).flatten()
    };
    let gone: BTreeSet<(String, String)> =
        changes.iter().filter_map(|change| deleted(change).or_else(|| replaced(change))).collect();
    let mut bill = Bill::default();
    let copied: BTreeSet<(&str, &str)> = changes
        .iter()
        .filter(|change| change.copy.is_some())
        .filter_map(|change| Some((change.engine.as_str(), change.image.id.as_deref()?)))
        .collect();
    let mut originals = BTreeMap::new();
    for engine in &inventory.engines {
        for image in &engine.images {
            if copied.contains(&(engine.name.as_str(), image.id.as_str())) {
                originals.insert((&engine.name, &image.name), (image.kind, image.stored_bytes));
            }
            let is_gone = gone.contains(&(engine.name.clone(), image.id.clone()));
            if !is_gone && matches!(image.ownership(), Ownership::Ours(_)) {
                bill.add(prices, &engine.name, &image.location, image.kind, image.stored_bytes);
            }
        }
    }
    for change in changes {
        if let Some(create) = &change.create {
            let (location, bytes) = (&change.image.location, size(change));
            bill.add(prices, &change.engine, location, create.kind, bytes);
            originals.insert((&change.engine, &change.image.name), (create.kind, bytes));
        }
    }
    for change in changes {
        let original = originals.get(&(&change.engine, &change.image.name));
        if let (Some(copy), Some((kind, bytes))) = (&change.copy, original) {
            bill.add(prices, &change.engine, &copy.location, *kind, *bytes);
        }
    }
    bill
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::written::Texts;

    fn rate(location: &str, kind: Option<ImageKind>, per_gib_month: u64) -> Rate {
        let locations = Some(Patterns::new(&Texts(vec![location.to_owned()])).unwrap());
        Rate { engines: None, locations, kind, per_gib_month }
    }

    fn prices() -> Prices {
        Prices::new(
            "USD",
            jiff::civil::date(2026, 11, 1),
            vec![
                rate("us*", Some(ImageKind::Snapshot), 26_000),
                rate("us", None, 50_000),
                rate("eu", None, 1),
            ],
        )
    }

    #[test]
    fn the_first_price_that_fits_holds() {
        let prices = prices();
        assert_eq!(prices.rate("e", "us", ImageKind::Snapshot), Some(26_000));
        assert_eq!(prices.rate("e", "us", ImageKind::DiskImage), Some(50_000));
        assert_eq!(prices.rate("e", "us-east", ImageKind::DiskImage), None);
    }

    #[test]
    fn sums_are_exact_and_money_is_rounded_once() {
        // A third of a cent, three hundred times: floats or early rounding would lose a cent.
        let third = Amount::of((1 << 30) / 3, 10_000);
        let sum = (0..300).fold(Amount::default(), |sum, _| sum.plus(third));
        assert_eq!(sum, Amount::of((1 << 30) / 3 * 300, 10_000));
        assert_eq!(prices().money(sum).to_string(), "1.00 USD/month");
        assert_eq!(sum.minus(sum), Amount::default());
        assert_eq!(third.minus(sum), Amount::default());
    }

    #[test]
    fn money_reads_as_people_write_it() {
        for (micros, text) in [
            (0, "0.00 USD/month"),
            (4_999, "0.00 USD/month"),
            (5_000, "0.01 USD/month"),
            (12_340_000, "12.34 USD/month"),
            (1_999_999_999, "2000.00 USD/month"),
        ] {
            assert_eq!(Money { micros, currency: "USD".to_owned() }.to_string(), text);
        }
    }

    #[test]
    fn what_has_no_price_or_size_is_said() {
        let mut bill = Bill::default();
        let prices = prices();
        bill.add(&prices, "e", "us", ImageKind::DiskImage, Some(2 << 30));
        assert_eq!(bill.left_out(), None);
        bill.add(&prices, "e", "asia", ImageKind::DiskImage, Some(5));
        bill.add(&prices, "e", "us", ImageKind::DiskImage, None);
        assert_eq!((bill.amount, bill.images), (Amount::of(2 << 30, 50_000), 1));
        assert_eq!(
            bill.left_out().as_deref(),
            Some(
                "not counted: 1 image without a price (e/asia disk-image); 1 image of unknown size"
            )
        );
    }
}
