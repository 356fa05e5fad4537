use std::net::SocketAddr;

use axum::body::Body;
use dtm_identity::{Caller, Identity, Role};
use dtm_machine::seams::SeededEntropy;
use dtm_setup::pki::{Subject, make_authority, make_request};
use dtm_setup::tls::PeerInfo;
use dtm_types::command::OperatorRow;
use dtm_types::{DAY_US, NodeId};
use http::header::COOKIE;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const NOW_US: i64 = 1_795_000_000_000_000;

struct Fixed {
    operators: Vec<OperatorRow>,
    readiness: Readiness,
    today: Option<Today>,
}

#[async_trait::async_trait]
impl LiveStatus for Fixed {
    async fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }
    async fn overview(&self) -> Overview {
        let node = NodeLine { name: "<n1>".into(), reachable: true, ..NodeLine::default() };
        let stopped = NodeLine { stopped: true, ..node.clone() };
        let source = SourceLine {
            source: "tinh-01".into(),
            title_vi: "Tỉnh 01".into(),
            records: 1_234_567,
            ..SourceLine::default()
        };
        Overview {
            cluster: "thử".into(),
            nodes: vec![node, stopped],
            sources: vec![source],
            today: self.today,
            ack_p99_ms: 1.5,
            ..Overview::default()
        }
    }
    async fn operator(&self, name: &str) -> Option<OperatorRow> {
        self.operators.iter().find(|row| row.name == name).cloned()
    }
}

fn certificate(role: Role, cluster: ClusterId) -> PeerInfo {
    let authority = make_authority("t", NOW_US).expect("made");
    let request = make_request("x").expect("made");
    let subject = Subject {
        identity: Identity::Operator { cluster, name: "lan".into(), role },
        names: vec![],
        days: 9,
    };
    let mut chain = authority.issuing.sign(&request.der, &subject, NOW_US).expect("signed");
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    PeerInfo::new(address, Some(Arc::new(chain.swap_remove(0))))
}

fn row(info: &PeerInfo, role: Role) -> OperatorRow {
    let facts =
        dtm_identity::Certificate::parse(info.certificate.as_ref().expect("held")).expect("ours");
    OperatorRow {
        name: "lan".into(),
        role: role.name().into(),
        certificate_digest: facts.digest.to_vec().into(),
        not_after_us: facts.not_after_us,
        ..OperatorRow::default()
    }
}

fn pages(operators: Vec<OperatorRow>, readiness: Readiness) -> (Router, Arc<Console>) {
    pages_of(Fixed { operators, readiness, today: None })
}

fn pages_of(status: Fixed) -> (Router, Arc<Console>) {
    let console = Arc::new(Console::new(Arc::new(SeededEntropy::new(1)), NodeId([1; 16])));
    let router = router(Pages {
        status: Arc::new(status),
        metrics: Arc::new(|| "dtm_up 1\n".into()),
        console: Arc::clone(&console),
        cluster: CLUSTER,
        now_us: Arc::new(|| NOW_US),
    });
    (router, console)
}

async fn ask(
    router: &Router,
    path: &str,
    peer: Option<&PeerInfo>,
    lang: &str,
) -> (u16, HeaderMap, String) {
    ask_with(router, path, peer, lang, HeaderMap::new()).await
}

async fn ask_with(
    router: &Router,
    path: &str,
    peer: Option<&PeerInfo>,
    lang: &str,
    headers: HeaderMap,
) -> (u16, HeaderMap, String) {
    let mut request = http::Request::get(path).body(Body::empty()).expect("a request");
    *request.headers_mut() = headers;
    let lang = HeaderValue::from_str(lang).expect("text");
    request.headers_mut().insert(ACCEPT_LANGUAGE, lang);
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer.clone());
    }
    let answer = router.clone().oneshot(request).await.expect("infallible");
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn only_health_is_open() {
    let (router, _) = pages(vec![], Readiness::Ready);
    assert_eq!(ask(&router, "/healthz", None, "vi").await.0, 200);
    assert_eq!(ask(&router, "/readyz", None, "vi").await.0, 200);
    for path in ["/", "/metrics", "/?t=1-2"] {
        let (status, headers, body) = ask(&router, path, None, "en").await;
        assert_eq!(status, 401, "{path}");
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert!(body.contains("\"code\":\"unauthenticated\""), "{body}");
    }
    for (lang, name) in [(Lang::Vi, "vi"), (Lang::En, "en")] {
        let (status, _, body) = ask(&router, "/nothing", None, name).await;
        let title = dtm_types::text::render(lang, "error.not-found", &[]);
        assert!(status == 404 && body.contains(&title), "{body}");
    }
    let (router, _) = pages(vec![], Readiness::NotReady { reason: "no quorum".into() });
    assert_eq!(ask(&router, "/readyz", None, "vi").await.0, 503);
}

#[tokio::test]
async fn an_operator_in_force_sees_page_and_metrics() {
    let peer = certificate(Role::Operator, CLUSTER);
    let good = row(&peer, Role::Operator);
    let (router, _) = pages(vec![good.clone()], Readiness::Ready);
    assert_eq!(ask(&router, "/metrics", Some(&peer), "vi").await.2, "dtm_up 1\n");
    assert_eq!(ask(&router, "/", Some(&peer), "vi").await.0, 200);
    let revoked = OperatorRow { revoked: true, ..good.clone() };
    for (rows, status) in [(vec![], 401), (vec![revoked], 401)] {
        assert_eq!(ask(&pages(rows, Readiness::Ready).0, "/", Some(&peer), "vi").await.0, status);
    }
    let foreign = certificate(Role::Operator, ClusterId([8; 16]));
    assert_eq!(ask(&router, "/", Some(&foreign), "vi").await.0, 409);
    let approver = certificate(Role::Approver, CLUSTER);
    let (router, _) = pages(vec![row(&approver, Role::Approver)], Readiness::Ready);
    assert_eq!(ask(&router, "/metrics", Some(&approver), "vi").await.0, 403);
    assert_eq!(ask(&router, "/", Some(&approver), "vi").await.0, 200);
}

/// What a browser gets with these cookies.
async fn browse(router: &Router, path: &str, cookie: &str, lang: &str) -> (u16, HeaderMap, String) {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_str(cookie).expect("text"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/html,application/xhtml+xml"));
    ask_with(router, path, None, lang, headers).await
}

fn operator(row: &OperatorRow) -> Caller {
    let certificate_digest = row.certificate_digest[..].try_into().expect("32 bytes");
    Caller::Operator { name: row.name.clone(), role: Role::Operator, certificate_digest }
}

#[tokio::test]
async fn a_link_becomes_a_session_that_shows_the_page_and_not_the_metrics() {
    let lan = row(&certificate(Role::Operator, CLUSTER), Role::Operator);
    let (router, console) = pages(vec![lan.clone()], Readiness::Ready);
    let (token, _) = console.link(operator(&lan), NOW_US);
    let link = format!("/?t={token}&lang=en");
    let mut head = http::Request::head(&*link).body(Body::empty()).expect("a request");
    head.headers_mut().insert(ACCEPT, HeaderValue::from_static("*/*"));
    let looked = router.clone().oneshot(head).await.expect("infallible");
    assert!(looked.headers().get(SET_COOKIE).is_none(), "a look at the head uses no link up");
    let (status, headers, body) = browse(&router, &link, "", "vi").await;
    assert_eq!((status, &headers[LOCATION]), (303, &HeaderValue::from_static("/?lang=en")));
    assert!(body.is_empty());
    let cookie = headers[SET_COOKIE].to_str().expect("text").split(';').next().expect("a pair");
    let (status, headers, vi) = browse(&router, "/", cookie, "fr, vi;q=0.5").await;
    assert_eq!(status, 200);
    assert!(vi.contains("<html lang=\"vi\">") && vi.contains("1.234.567") && vi.contains("1,5 ms"));
    assert!(vi.contains("&#60;n1&#62;"), "names are escaped");
    assert!(vi.contains("<span class=\"bad\">đã dừng</span>"), "a stopped node is not running");
    assert!(!vi.contains("page."), "every word has its text");
    assert!(!vi.contains("<script") && !vi.contains(&token));
    assert!(
        headers["content-security-policy"].to_str().expect("text").contains("style-src 'sha256-")
    );
    let (_, _, en) = browse(&router, "/?lang=en", cookie, "vi").await;
    assert!(en.contains("<html lang=\"en\">") && en.contains("1,234,567") && !en.contains("page."));
    // With the session at hand a used link leads to the page, without it nowhere.
    assert_eq!(browse(&router, &link, cookie, "vi").await.0, 303);
    assert_eq!(browse(&router, &link, "", "vi").await.0, 401);
    assert_eq!(browse(&router, "/metrics", cookie, "vi").await.0, 401);
}

#[tokio::test]
async fn a_session_ends_with_its_operator_and_says_how_to_come_back() {
    let lan = row(&certificate(Role::Operator, CLUSTER), Role::Operator);
    let revoked = OperatorRow { revoked: true, ..lan.clone() };
    let (router, console) = pages(vec![revoked], Readiness::Ready);
    let (token, _) = console.link(operator(&lan), NOW_US);
    let cookie = console.exchange(&token, NOW_US).expect("a session");
    let (status, headers, body) = browse(&router, "/", cookie.to_str().expect("text"), "vi").await;
    assert_eq!(status, 401);
    assert!(headers[CONTENT_TYPE].to_str().expect("text").starts_with("text/html"));
    assert!(body.contains("dtm console open") && body.contains("12 giờ"), "{body}");
    assert!(!body.contains("page.") && !body.contains("error."), "{body}");
}

#[tokio::test]
async fn today_stands_beside_the_sums_and_says_where_it_is_not_whole_or_not_known() {
    let peer = certificate(Role::Operator, CLUSTER);
    let today = Today { records: 45_678, refused: 91, from_us: 0 };
    // 10:32 there.
    let partial = Today { from_us: NOW_US - NOW_US % DAY_US + (3 * 60 + 32) * 60_000_000, ..today };
    for (today, vi, en) in [
        (
            Some(today),
            ["hôm nay</dt><dd>45.678", "chối hôm nay</dt><dd>91"],
            "today</dt><dd>45,678",
        ),
        (
            Some(partial),
            ["hôm nay (từ 10:32)</dt><dd>45.678", "chối hôm nay (từ 10:32)</dt><dd>91"],
            "Refused today (from 10:32)</dt><dd>91",
        ),
        (None, ["ghi hôm nay</dt><dd>–", "chối hôm nay</dt><dd>–"], "Records today</dt><dd>–"),
    ] {
        let operators = vec![row(&peer, Role::Operator)];
        let (router, _) = pages_of(Fixed { operators, readiness: Readiness::Ready, today });
        let (_, _, page) = ask(&router, "/", Some(&peer), "vi").await;
        assert!(vi.iter().all(|tile| page.contains(tile)), "{page}");
        let (_, _, page) = ask(&router, "/?lang=en", Some(&peer), "vi").await;
        assert!(page.contains(en), "{page}");
    }
}

#[tokio::test]
async fn a_grpc_client_is_told_that_this_is_not_its_port() {
    let request = http::Request::post("/dtm.admin.v1.AdminService/ClusterStatus")
        .header(CONTENT_TYPE, "application/grpc")
        .body(Body::empty())
        .expect("a request");
    let (router, _) = pages(Vec::new(), Readiness::Ready);
    let answer = router.oneshot(request).await;
    let answer = answer.expect("answers");
    let kind = answer.headers()[CONTENT_TYPE].to_str().expect("text");
    assert_eq!((answer.status(), kind), (StatusCode::OK, "application/grpc"));
    let told = tonic::Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(told.code(), tonic::Code::InvalidArgument);
    assert!(told.message().contains("node.grpc"), "{told:?}");
}
