//! Messages as chat services take them. None of them reads names as markup.

use serde_json::{Value, json};

use super::{Notification, Status};

/// What services take of one text, in characters.
const TITLE_MAX: usize = 150;
const TEXT_MAX: usize = 2_900;

/// As an incoming webhook of Slack takes it.
/// Source: docs.slack.dev/messaging/formatting-message-text, block-kit/blocks/section-block.
pub fn slack(message: &Notification) -> Value {
    let section = |text: String| json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}});
    let title = clipped(&message.title, TITLE_MAX);
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": title, "emoji": false}}),
    ];
    // A block takes 3,000 characters: lines are not cut where they can be kept whole.
    let mut text = String::new();
    for line in message.text.lines() {
        let line = escaped(line);
        if !text.is_empty() && text.len() + line.len() > TEXT_MAX {
            blocks.push(section(std::mem::take(&mut text)));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&clipped(&line, TEXT_MAX));
    }
    blocks.push(section(text));
    json!({"text": escaped(&title), "blocks": blocks})
}

/// The three characters that mean something to Slack.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// As a webhook of the Workflows of Microsoft Teams takes it: an Adaptive Card whose texts are runs,
/// which are shown as they are.
/// Source: adaptivecards.io/explorer/TextRun.html; learn.microsoft.com/microsoftteams, webhooks.
pub fn teams(message: &Notification) -> Value {
    let run = |text: &str| json!({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]});
    let colour = match message.status {
        Status::Firing => "attention",
        Status::Resolved => "good",
        Status::Test => "default",
    };
    let mut body = vec![json!({
        "type": "RichTextBlock",
        "inlines": [{
            "type": "TextRun",
            "text": clipped(&message.title, TITLE_MAX),
            "weight": "bolder",
            "size": "medium",
            "color": colour,
        }],
    })];
    body.extend(message.text.lines().map(run));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
                "msteams": {"width": "Full"},
            },
        }],
    })
}

/// As a room of Matrix takes it: a plain text, for which clients notify people.
/// Source: spec.matrix.org, client-server API, m.text.
pub fn matrix(message: &Notification) -> Value {
    json!({"msgtype": "m.text", "body": format!("{}\n{}", message.title, message.text)})
}

fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
