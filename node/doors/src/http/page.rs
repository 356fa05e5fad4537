//! The live page: one document, no script, refreshed by the browser.

use std::sync::LazyLock;

use askama::Template;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dtm_types::text::{Lang, render};
use dtm_types::{DAY_US, ErrorCode, LOCAL_OFFSET_US};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::{Overview, Today};

/// How often the browser asks again, seconds.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = dtm_ctl::PAGE_STYLE;

/// The stylesheet is allowed by its digest, so that no other style and no script can run.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 is allowed in a header")
});

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    lang: &'static str,
    other_lang: &'static str,
    style: &'static str,
    refresh_seconds: u32,
    time: String,
    is_vi: bool,
    overview: &'a Overview,
    words: Words,
}

/// Texts of the page by key.
struct Words(Lang);

impl Words {
    fn of(&self, key: &str) -> String {
        render(self.0, &format!("page.{key}"), &[])
    }
}

/// What a browser sees that has no session.
#[derive(Template)]
#[template(path = "entry.html")]
struct Entry {
    lang: &'static str,
    other_lang: &'static str,
    style: &'static str,
    refresh_seconds: u32,
    reason: String,
    words: Words,
}

/// A language and the other one, as they stand in addresses.
fn codes(lang: Lang) -> (&'static str, &'static str) {
    match lang {
        Lang::Vi => ("vi", "en"),
        Lang::En => ("en", "vi"),
    }
}

/// Why the page is not shown, and how to come in. It asks again by itself: once a link was opened
/// beside it, it is the page.
pub(crate) fn turned_away(code: ErrorCode, lang: Lang) -> Response {
    let (own, other_lang) = codes(lang);
    let entry = Entry {
        lang: own,
        other_lang,
        style: STYLE,
        refresh_seconds: REFRESH_SECONDS,
        reason: render(lang, &format!("error.{code}"), &[]),
        words: Words(lang),
    };
    document(super::http_status(code), &entry)
}

/// The page as an answer.
pub(crate) fn answer(overview: &Overview, lang: Lang, now_us: i64) -> Response {
    let (code, other) = codes(lang);
    let page = Page {
        lang: code,
        other_lang: other,
        style: STYLE,
        refresh_seconds: REFRESH_SECONDS,
        time: clock_time(now_us),
        is_vi: lang == Lang::Vi,
        overview,
        words: Words(lang),
    };
    document(StatusCode::OK, &page)
}

fn document(status: StatusCode, page: &impl Template) -> Response {
    let Ok(body) = page.render() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

/// Time of day in Vietnam (+07:00).
fn clock_time(now_us: i64) -> String {
    let (hour, minute, second) = clock(now_us);
    format!("{hour:02}:{minute:02}:{second:02} +07:00")
}

/// Hour, minute and second there.
fn clock(time_us: i64) -> (i64, i64, i64) {
    let second = (time_us + LOCAL_OFFSET_US).rem_euclid(DAY_US) / 1_000_000;
    (second / 3_600, second / 60 % 60, second % 60)
}

/// Digits in groups of three, as people read them.
pub(crate) fn grouped(number: u64, is_vi: bool) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(if is_vi { '.' } else { ',' });
        }
        text.push(digit);
    }
    text
}

impl Page<'_> {
    fn number(&self, number: &u64) -> String {
        grouped(*number, self.is_vi)
    }

    fn records_today(&self) -> String {
        self.today(|today| today.records)
    }

    fn refused_today(&self) -> String {
        self.today(|today| today.refused)
    }

    /// A number of today; a dash where it is not known.
    fn today(&self, pick: fn(Today) -> u64) -> String {
        let number = self.overview.today.map(|today| grouped(pick(today), self.is_vi));
        number.unwrap_or_else(|| "–".into())
    }

    /// Since when today is counted, where that is not midnight.
    fn since(&self) -> String {
        let from_us = self.overview.today.map_or(0, |today| today.from_us);
        if from_us == 0 {
            return String::new();
        }
        let (hour, minute, _) = clock(from_us);
        format!(" ({} {hour:02}:{minute:02})", self.words.of("since"))
    }

    fn milliseconds(&self, value: &f64) -> String {
        if *value <= 0.0 {
            return "–".into();
        }
        let text = format!("{value:.1}");
        if self.is_vi { text.replace('.', ",") } else { text }
    }
}
