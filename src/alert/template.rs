//! Templates of bodies: they get the message and nothing else.

use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason, no_escape,
};
use jiff::Timestamp;
use serde_json::Value;

use super::{Condition, Digest, Notification, Occasion, Subject, Told, digest_of};
use crate::policy::meant::BodyFormat;

const NAME: &str = "body";
/// What templates may use.
const KNOWN: &str = "a body may use format_version, id, status, at, name, title, text, counts, conditions and \
                     left_out; `{{json conditions}}` writes one of them as JSON";

/// A template of bodies, compiled.
pub struct Template {
    templates: Handlebars<'static>,
}

/// What is wrong with a template, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Template {
    /// Compiles a template and tries it on messages whose names hold whatever names can hold.
    pub fn new(text: &str, format: BodyFormat) -> Result<Self, TemplateError> {
        let mut templates = Handlebars::new();
        templates.set_strict_mode(true);
        match format {
            BodyFormat::Json => templates.register_escape_fn(json_text),
            BodyFormat::Text => templates.register_escape_fn(no_escape),
        }
        // A template can write neither to the log nor anywhere else.
        templates.unregister_helper("log");
        templates.register_helper("json", Box::new(json));
        templates.register_template_string(NAME, text).map_err(|error| TemplateError {
            message: format!("not a template: {}", error.reason()),
            hint: None,
        })?;
        let template = Self { templates };
        for sample in samples() {
            let body = template.render(&sample)?;
            if format == BodyFormat::Json
                && let Err(error) = serde_json::from_str::<Value>(&body)
            {
                return Err(TemplateError {
                    message: format!("with some names the body is not JSON: {error}"),
                    hint: Some(
                        "write texts as \"{{title}}\", never with three braces, and everything else as \
                         {{json conditions}}"
                            .to_owned(),
                    ),
                });
            }
        }
        Ok(template)
    }

    /// The body of a message.
    pub fn render(&self, message: &Notification) -> Result<String, TemplateError> {
        self.templates.render(NAME, message).map_err(|error| match error.reason() {
            RenderErrorReason::MissingVariable(path) => TemplateError {
                message: format!("there is no `{}` here", path.clone().unwrap_or_default()),
                hint: Some(KNOWN.to_owned()),
            },
            reason => TemplateError { message: format!("not a template: {reason}"), hint: None },
        })
    }
}

/// A text as it stands between quotes in JSON.
fn json_text(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// `{{json VALUE}}`: the value as JSON.
fn json(
    helper: &Helper<'_>,
    _: &Handlebars<'_>,
    _: &Context,
    _: &mut RenderContext<'_, '_>,
    out: &mut dyn Output,
) -> HelperResult {
    let value = helper.param(0).map(|param| param.value().clone()).unwrap_or_default();
    out.write(&value.to_string())?;
    Ok(())
}

/// Messages that a template must stand: with one condition, and with none.
fn samples() -> Vec<Notification> {
    let odd = "\"quoted\" \\ <b>\n{{x}}";
    let subject = Subject {
        occasion: Occasion::Failure,
        engine: odd.to_owned(),
        policy: odd.to_owned(),
        source: odd.to_owned(),
        detail: odd.to_owned(),
    };
    let condition = Condition::new(subject, odd, odd.to_owned());
    let told = Told::new(condition, Timestamp::UNIX_EPOCH);
    let digest = Digest { new: vec![told], ..Digest::default() };
    let all = Occasion::ALL.into_iter().collect();
    // Nothing is cleaned: a template that stands this stands everything.
    let one = digest_of(&digest, &all, odd, str::to_owned, Timestamp::UNIX_EPOCH);
    let none = super::test_message(odd, str::to_owned, Timestamp::UNIX_EPOCH);
    one.into_iter().chain([none]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_break_a_body_is_found_before_it_is_sent() {
        let said =
            |text: &str, format| Template::new(text, format).err().map(|error| error.message);
        for good in [
            r#"{"text": "{{title}}"}"#,
            r#"{"all": {{json this}}, "n": {{left_out}}}"#,
            r#"{"lines": [{{#each conditions}}{{#if @index}},{{/if}}"{{line}}"{{/each}}]}"#,
            r#"{"s": {{#if (eq status "test")}}1{{else}}2{{/if}}}"#,
        ] {
            assert_eq!(said(good, BodyFormat::Json), None, "{good}");
        }
        assert_eq!(said("{{title}}: {{{text}}}", BodyFormat::Text), None);
        for (bad, why) in [
            (r#"{"text": "{{{title}}}"}"#, "not JSON"),
            (r#"{"text": "{{&title}}"}"#, "not JSON"),
            (r#"{"text": {{title}}}"#, "not JSON"),
            (r#"{"text": "{{titel}}"}"#, "no `titel`"),
            (r#"{"text": "{{#each conditions}}{{lime}}{{/each}}"}"#, "no `lime`"),
            (r#"{"text": "{{title}"}"#, "not a template"),
            ("{{text}}", "not JSON"),
        ] {
            let message = said(bad, BodyFormat::Json).unwrap_or_default();
            assert!(message.contains(why), "{bad}: {message}");
        }
    }
}
