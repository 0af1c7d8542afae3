//! The web page of the host: its files, which are part of the binary, and the headers they are served with.
//!
//! It owns their paths and types, and what keeps the page from loading or running anything that is not its own. It does not know
//! what the page shows: that comes from the API, to a browser that was let in. The files hold no data and are served to anybody.

use std::{fmt::Write, future};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

/// What the page may load and do: its own files and this host, and nothing else. Text of processes can become no markup, because
/// with trusted types no text can.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

/// A file of the page.
#[derive(Clone, Copy)]
struct PageFile {
    path: &'static str,
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! page_file {
    ($path:expr, $name:literal) => {
        PageFile { path: $path, name: $name, bytes: include_bytes!(concat!("../page/", $name)) }
    };
    ($name:literal) => {
        page_file!(concat!("/assets/", $name), $name)
    };
}

/// Every file of the page.
const FILES: &[PageFile] = &[
    page_file!("/", "index.html"),
    page_file!("api.js"),
    page_file!("app.js"),
    page_file!("attention_view.js"),
    page_file!("change_feed.js"),
    page_file!("chart.js"),
    page_file!("dialog.js"),
    page_file!("dom.js"),
    page_file!("event_stream.js"),
    page_file!("host_figures.js"),
    page_file!("icon.svg"),
    page_file!("list_view.js"),
    page_file!("output_log.js"),
    page_file!("process_actions.js"),
    page_file!("process_search.js"),
    page_file!("process_view.js"),
    page_file!("shell_words.js"),
    page_file!("start_dialog.js"),
    page_file!("style.css"),
    page_file!("terminal_text.js"),
    page_file!("time_text.js"),
    page_file!("timeline.js"),
];

/// The routes of the page.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let tag = entity_tag(file.bytes);
        router.route(file.path, get(move |headers: HeaderMap| future::ready(served(file, &tag, &headers))))
    })
}

/// The file, or word that the browser's copy is still good. It is asked for each time: after an update no old module meets a new one.
fn served(file: &PageFile, tag: &HeaderValue, asked: &HeaderMap) -> Response {
    let headers = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(file.name))),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    if is_known(asked, tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, Bytes::from_static(file.bytes)).into_response()
}

fn is_known(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|value| value.trim().trim_start_matches("W/").as_bytes() == tag)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn entity_tag(bytes: &[u8]) -> HeaderValue {
    let mut text = String::from("\"");
    for byte in &Sha256::digest(bytes)[..16] {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn answer(path: &str, known: Option<&HeaderValue>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).expect("a request");
        routes::<()>().oneshot(request).await.expect("an answer")
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let there = fs::read_dir(directory).expect("the page").map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("a name")
        });
        let served = FILES.iter().map(|file| file.name.to_owned());
        assert_eq!(served.collect::<BTreeSet<_>>(), there.collect::<BTreeSet<_>>());
    }

    #[tokio::test]
    async fn each_file_comes_with_its_type_and_may_load_only_its_own() {
        for file in FILES {
            let response = answer(file.path, None).await;
            assert_eq!(response.status(), StatusCode::OK, "{}", file.path);
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
            assert!(header(header::CONTENT_TYPE).starts_with(&content_type(file.name)[..8]), "{}", file.path);
            assert!(header(header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none';"), "{}", file.path);
            assert!(!header(header::CONTENT_SECURITY_POLICY).contains("unsafe"));
            assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(header::REFERRER_POLICY), "no-referrer");
        }
    }

    #[tokio::test]
    async fn a_copy_that_is_still_good_is_not_sent_again() {
        let first = answer("/assets/app.js", None).await;
        let tag = first.headers().get(header::ETAG).expect("a tag").clone();
        assert_eq!(answer("/assets/app.js", Some(&tag)).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("/assets/style.css", Some(&tag)).await.status(), StatusCode::OK);
    }

    #[test]
    fn nothing_of_the_page_is_inline_and_no_text_becomes_markup() {
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).expect("text");
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(forbidden), "{forbidden} in {}", file.name);
            }
            if file.name.ends_with(".html") {
                for forbidden in ["<style", "style=", "<script>", " onclick=", " onload="] {
                    assert!(!text.contains(forbidden), "{forbidden} in {}", file.name);
                }
            }
        }
    }
}
