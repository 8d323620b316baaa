//! The console over HTTP: who may see it, who may act, and which requests come from elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
    ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{StatusCode, Uri};

use super::access::{Token, is_same};
use super::answers::{Answer, Site, error, of, with};
use super::spoken;
use super::ticker::TicksSeen;
use crate::cli::console::{self, Acted, Page, Process, Setting};
use crate::cli::ui;
use crate::model::hint::Fault;

const HTML: &str = "text/html; charset=utf-8";

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Read,
    Act,
}

/// Why a caller sees nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It gave no token, or a wrong one.
    NoToken,
    /// Other machines reach the server, and it has no token.
    Outside,
    /// The server has no token, and the request names another host. The name of another site may
    /// lead here.
    OtherName,
    /// Ticks need no token, and a browser on this machine may have sent the request for another
    /// site.
    OtherSite,
}

impl Refusal {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::NoToken => {
                let refusal = error(
                    StatusCode::UNAUTHORIZED,
                    "give the token as the password, with any name, or send `Authorization: \
                     Bearer TOKEN`",
                );
                with(refusal, WWW_AUTHENTICATE, "Basic realm=\"tallymark\"")
            }
            Self::Outside => error(
                StatusCode::FORBIDDEN,
                "other machines reach this address, so it needs a token: start `tallymark serve` \
                 with --read-token-env or --operator-token-env",
            ),
            Self::OtherName => error(
                StatusCode::FORBIDDEN,
                "without a token, the console answers to localhost only; start `tallymark serve` \
                 with --read-token-env",
            ),
            Self::OtherSite => error(
                StatusCode::FORBIDDEN,
                "without a token, /tick answers to localhost only, and to no page of another site; \
                 start `tallymark serve` with --tick-token-env",
            ),
        }
    }
}

/// Who may see the pages, and who may act.
pub(super) struct Gate {
    pub(super) read_token: Option<Token>,
    pub(super) operator_token: Option<Token>,
    /// Whether only this machine reaches the server.
    pub(super) is_local: bool,
}

impl Gate {
    /// What the caller may do, or the refusal.
    fn rights(&self, headers: &HeaderMap) -> Result<Rights, Refusal> {
        if self.operator_token.as_ref().is_some_and(|token| token.is_shown(headers)) {
            return Ok(Rights::Act);
        }
        if self.read_token.as_ref().is_some_and(|token| token.is_shown(headers)) {
            return Ok(Rights::Read);
        }
        if self.read_token.is_some() || self.operator_token.is_some() {
            return Err(Refusal::NoToken);
        }
        self.refuse_outside()?;
        if is_this_machine(headers) { Ok(Rights::Read) } else { Err(Refusal::OtherName) }
    }

    /// Refuses to show anything to other machines without a token.
    fn refuse_outside(&self) -> Result<(), Refusal> {
        let has_token = self.read_token.is_some() || self.operator_token.is_some();
        if self.is_local || has_token { Ok(()) } else { Err(Refusal::Outside) }
    }

    /// Refuses metrics to those who may not see the pages.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.rights(headers).map(drop)
    }

    /// The proof that a form comes from a page of this server.
    fn form_token(&self) -> Option<String> {
        self.operator_token.as_ref().map(Token::for_forms)
    }
}

/// Whether the request names this machine as its host.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
    authority.is_some_and(|it| {
        let host = it.host().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|it| it.to_canonical().is_loopback())
    })
}

/// Whether a browser sent the request from a page of another site.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_other_site = text("sec-fetch-site").is_some_and(|site| site != "same-origin");
    let is_other_origin = text(ORIGIN.as_str()).is_some_and(|origin| {
        let origin = origin.parse::<Uri>().ok();
        let authority = origin.as_ref().and_then(Uri::authority).map(|it| it.as_str());
        authority.is_none() || authority != text(HOST.as_str())
    });
    is_other_site || is_other_origin
}

/// Refuses a request that a browser on this machine may have sent for another site: it names that
/// site as its host, as a name may lead here, or it comes from a page of that site. An address that
/// somebody typed comes from no page.
pub(super) fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_typed = headers.get("sec-fetch-site").is_some_and(|site| site == "none");
    let is_ours = is_typed || !is_from_elsewhere(headers);
    if is_ours && is_this_machine(headers) { Ok(()) } else { Err(Refusal::OtherSite) }
}

/// Answers with a page.
pub(super) async fn show(site: &Site, head: &Parts) -> Answer {
    let rights = match site.gate.rights(&head.headers) {
        Ok(rights) => rights,
        Err(refusal) => return refusal.answer(),
    };
    let token = site.gate.form_token().filter(|_| rights == Rights::Act);
    let process = process(site);
    let setting = setting(site, token.as_deref(), &process);
    let query = head.uri.query().unwrap_or_default();
    let page = console::show(&site.console, head.uri.path(), query, setting).await;
    answer(page)
}

/// Does what a form asks for.
pub(super) async fn act(site: &Site, head: &Parts, body: &Bytes) -> Answer {
    let headers = &head.headers;
    match site.gate.rights(headers) {
        Err(refusal) => return refusal.answer(),
        Ok(Rights::Act) => {}
        Ok(Rights::Read) => {
            return error(
                StatusCode::FORBIDDEN,
                "this needs the operator's token: --operator-token-env of `tallymark serve`",
            );
        }
    }
    let fields = console::parameters(body);
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|it| it.split(';').next() == Some(FORM)));
    let token = site.gate.form_token().unwrap_or_default();
    let is_ours = fields.get("token").is_some_and(|given| is_same(given, &token));
    if is_from_elsewhere(headers) || !is_form || !is_ours {
        return error(StatusCode::FORBIDDEN, "act by the forms of this console");
    }
    if site.ticker.worker.interrupt.is_raised() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the process is ending");
    }
    let process = process(site);
    let setting = setting(site, Some(&token), &process);
    let by = head.extensions.get::<SocketAddr>().copied();
    let by = by.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    match console::act_on(&site.actions, &fields, by, setting).await {
        Acted::Shown(page) => answer(page),
        Acted::At(address) => {
            let mut answer = of(StatusCode::SEE_OTHER, HTML, String::new());
            if let Ok(address) = HeaderValue::from_str(&address) {
                answer.headers_mut().insert(LOCATION, address);
            }
            answer
        }
    }
}

fn setting<'s>(site: &Site, token: Option<&'s str>, process: &'s Process) -> Setting<'s> {
    let now = site.console.clock.now();
    Setting { form_token: token, is_served: true, process: Some(process), now }
}

fn answer(page: Page) -> Answer {
    let (status, text) = match page {
        Page::Shown(text) => (StatusCode::OK, text),
        Page::Missing(text) => (StatusCode::NOT_FOUND, text),
        Page::Refused(text) => (StatusCode::UNPROCESSABLE_ENTITY, text),
        Page::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    of(status, HTML, text)
}

/// The answer with the headers that keep it apart from other sites.
pub(super) fn kept_apart(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    let policy = format!("{}; frame-ancestors 'none'", *console::POLICY);
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// What this process knows, for the overview.
fn process(site: &Site) -> Process {
    let TicksSeen { last, next_at, .. } = site.ticker.known();
    let mut process = Process { actions: site.actions.kept(), ..Process::default() };
    process.ticks.push(match site.every {
        Some(every) => format!("when something is due, at most every {}", spoken(every)),
        None => "when it is asked to".to_owned(),
    });
    process.ticks.extend(site.ticker.running().map(|running| format!("one runs, {running}")));
    process.ticks.extend(next_at.map(|next| format!("the next at {}", ui::instant(next))));
    process.waits = site.ticker.worker.governor.waits().borrow().clone();
    let Some(last) = last else { return process };
    let word = if last.is_good() { "went well" } else { "failed" };
    process.ticks.push(format!(
        "the last began {} and {word}, after {}",
        ui::instant(last.began_at),
        ui::duration(Duration::from_millis(crate::model::clock::whole_ms(last.took())))
    ));
    match &last.result {
        Ok(report) => {
            process.problems.extend(report.problems.iter().map(|problem| {
                let fault = Fault::new(&problem.error).remedy_if_known(problem.hint.clone());
                (problem.rollup.clone(), fault)
            }));
            let held = report.held.iter();
            process.held = held.map(|it| (it.rollup.clone(), it.not_now.why.explained())).collect();
        }
        Err(failure) => {
            let fault = Fault::new(&failure.message).remedy_if_known(failure.hint.clone());
            process.problems.push((String::new(), fault));
        }
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn gate(read: Option<&str>, operator: Option<&str>, is_local: bool) -> Gate {
        let token = |text: &str| Token::of_text(text, "NAME");
        Gate { read_token: read.map(token), operator_token: operator.map(token), is_local }
    }

    fn rights(gate: &Gate, pairs: &[(&'static str, &str)]) -> Result<Rights, u16> {
        gate.rights(&headers(pairs)).map_err(|refusal| refusal.answer().status().as_u16())
    }

    #[test]
    fn without_a_token_only_this_machine_reads_and_nobody_acts() {
        let open = gate(None, None, true);
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"] {
            assert_eq!(rights(&open, &[("host", host)]), Ok(Rights::Read), "{host}");
        }
        for host in ["tallymark", "localhost.evil.example", "10.0.0.1:8080", "", "a b"] {
            assert_eq!(rights(&open, &[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(rights(&open, &[]), Err(403));
        assert_eq!(rights(&gate(None, None, false), &[("host", "localhost")]), Err(403));
        let named = |host: &str| gate(None, None, true).may_read(&headers(&[("host", host)]));
        assert_eq!(named("localhost"), Ok(()));
        assert_eq!(named("tallymark"), Err(Refusal::OtherName));
        let outside = gate(None, None, false).may_read(&headers(&[("host", "localhost")]));
        assert_eq!(outside, Err(Refusal::Outside));
    }

    #[test]
    fn without_a_token_no_other_site_starts_a_tick() {
        for (pairs, is_ours) in [
            (&[("host", "127.0.0.1:8080")][..], true),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], true),
            (&[("host", "localhost"), ("sec-fetch-site", "none")], true),
            (&[("host", "localhost"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "localhost"), ("origin", "https://other.example")], false),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], false),
            (&[("host", "other.example:8080"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "other.example:8080"), ("sec-fetch-site", "none")], false),
            (&[], false),
        ] {
            assert_eq!(refuse_other_sites(&headers(pairs)).is_ok(), is_ours, "{pairs:?}");
        }
    }

    #[test]
    fn each_token_opens_its_own_part() {
        let (read, operator) = ("the-reader-reads-this", "the-operator-acts-so");
        let bearer = |token: &str| format!("Bearer {token}");
        let basic = |token: &str| {
            format!("Basic {}", aws_smithy_types::base64::encode(format!("any:{token}")))
        };
        for is_local in [true, false] {
            let both = gate(Some(read), Some(operator), is_local);
            for form in [bearer, basic] {
                assert_eq!(rights(&both, &[("authorization", &form(read))]), Ok(Rights::Read));
                assert_eq!(rights(&both, &[("authorization", &form(operator))]), Ok(Rights::Act));
                assert_eq!(
                    rights(&both, &[("authorization", &form("the-wrong-token-x"))]),
                    Err(401)
                );
            }
            assert_eq!(rights(&both, &[("host", "localhost")]), Err(401));
            let metrics = both.may_read(&headers(&[("host", "localhost")]));
            assert_eq!(metrics, Err(Refusal::NoToken));
        }
    }

    #[test]
    fn forms_of_other_sites_are_known_by_what_browsers_send() {
        for (pairs, is_foreign) in [
            (
                &[("host", "a:1"), ("origin", "http://a:1"), ("sec-fetch-site", "same-origin")][..],
                false,
            ),
            (&[("host", "a"), ("origin", "https://a")], false),
            (&[("host", "a")], false),
            (&[("host", "a"), ("origin", "null")], true),
            (&[("host", "a"), ("origin", "http://b")], true),
            (&[("host", "a:1"), ("origin", "http://a:2")], true),
            (&[("host", "a"), ("sec-fetch-site", "cross-site")], true),
            (&[("host", "a"), ("sec-fetch-site", "same-site")], true),
            (&[("host", "a"), ("sec-fetch-site", "none")], true),
        ] {
            assert_eq!(is_from_elsewhere(&headers(pairs)), is_foreign, "{pairs:?}");
        }
    }
}
