//! The live page: one document, no script, refreshed by the browser.

use std::sync::LazyLock;

use askama::Template;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dtm_types::text::{Lang, render};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

use super::Overview;

/// How often the browser asks again, seconds.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = include_str!("../../templates/page.css");

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
    link: &'a str,
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

/// The page as an answer. `link` is the token in the address, kept for the refresh.
pub(super) fn answer(overview: &Overview, lang: Lang, link: Option<&str>, now_us: i64) -> Response {
    let (code, other) = match lang {
        Lang::Vi => ("vi", "en"),
        Lang::En => ("en", "vi"),
    };
    let page = Page {
        lang: code,
        other_lang: other,
        link: link.unwrap_or_default(),
        style: STYLE,
        refresh_seconds: REFRESH_SECONDS,
        time: clock_time(now_us),
        is_vi: lang == Lang::Vi,
        overview,
        words: Words(lang),
    };
    let Ok(body) = page.render() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // The address may hold a link's token.
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

/// Time of day in Vietnam (+07:00).
fn clock_time(now_us: i64) -> String {
    let second = (now_us.div_euclid(1_000_000) + 7 * 3_600).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} +07:00", second / 3_600, second / 60 % 60, second % 60)
}

/// Digits in groups of three, as people read them.
pub(super) fn grouped(number: u64, is_vi: bool) -> String {
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

    fn milliseconds(&self, value: &f64) -> String {
        if *value <= 0.0 {
            return "–".into();
        }
        let text = format!("{value:.1}");
        if self.is_vi { text.replace('.', ",") } else { text }
    }
}
