//! The web page in a real browser: what a person sees and does there, and that it stays true while hosts are killed.
//!
//! `PROCTOR_PAGE_PROCESSES` sets how many processes the long list holds, `PROCTOR_CHROMIUM` which browser is taken,
//! `PROCTOR_PAGE_PICTURES` a directory for pictures of the page.

#[path = "page/browser.rs"]
mod browser;
#[path = "page/served_host.rs"]
mod served_host;

use std::{env, time::Instant};

use registry_actor::{
    actor::ActorRegistry,
    domain::{
        LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessEventType, ProcessId, ProcessIdentity, ProcessInput,
        ProcessRegistration, ProcessSignal, ProcessStarted, RecoveryDisposition, WaitState,
    },
    port::ProcessRegistryExt,
};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, chromium},
    served_host::{ServedHost, register},
};

/// A process that nobody here runs.
fn elsewhere(id: &str, label: &str, tags: &[&str]) -> ProcessRegistration {
    let id = ProcessId::new(id).expect("an id");
    let input = ProcessInput::new("approval", json!({ "amount": 12 }));
    let mut registration = ProcessRegistration::new(id, input, RecoveryDisposition::ExternallyOwned)
        .with_tags(tags.iter().copied())
        .with_extra_event_types([ProcessEventType::plain("signal.approve")]);
    registration.identity = ProcessIdentity { label: Some(label.to_owned()), ..registration.identity };
    registration
}

/// Lets the process wait for its approval.
async fn wait_for_approval(registry: &ActorRegistry, id: &str) {
    let id = ProcessId::new(id).expect("an id");
    let signal = ProcessSignal::new("approve").expect("a name");
    registry.set_process_wait(&id, WaitState::signal(&id, &signal, 1, 1)).await.expect("a wait");
}

/// A process that was begun by an owner of whom nobody can say whether it lives.
async fn leave_stuck(registry: &ActorRegistry, id: &str) {
    let id = ProcessId::new(id).expect("an id");
    let input = ProcessInput::new("payment", json!({ "amount": 12 }));
    let process = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::OwnerBound);
    registry.register_process(process).await.expect("a registration");
    let owner = LeaseOwnerIdentity {
        owner_id: "a former owner".to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::Opaque,
    };
    let claimed = registry.claim_process_lease(&id, owner.clone(), 60_000).await.expect("an answer");
    let lease = claimed.acquired().expect("a lease");
    let started = ProcessStarted { owner, started_at_ms: 1 };
    registry.begin_process_attempt(&id, started, lease.fence()).await.expect("an attempt");
    registry.complete_process_lease(&lease).await.expect("a release");
}

/// The rows that are shown, as their ids.
const ROWS: &str = "[...document.querySelectorAll('tbody tr')].map((row) => row.querySelector('a').hash)";

/// The lines of output that are shown, as their places in the log.
const LINES: &str =
    "[...document.querySelectorAll('.line.stdout, .line.stderr')].map((line) => Number(line.dataset.sequence))";

/// Waits for so many lines of output.
fn until_lines(browser: &mut Browser, count: u64) {
    browser.until(&format!("{LINES}.length >= {count}"));
}

/// Checks that each line up to the last one that is shown is there, in its order, and once.
fn assert_no_gap_and_none_twice(browser: &mut Browser) {
    let answer = browser.evaluate(&format!(
        "(async () => {{
            const shown = {LINES};
            const id = decodeURIComponent(location.hash.slice('#/process/'.length));
            const stored = [];
            let after = 0;
            do {{
                const answer = await fetch(`/api/v1/processes/${{encodeURIComponent(id)}}/events?limit=1000&after=${{after}}`);
                const page = await answer.json();
                stored.push(...page.events.filter((event) => event.event_type === 'command.output'));
                after = page.next_after;
            }} while (after);
            return {{ shown, stored: stored.map(({{ sequence }}) => sequence).filter((sequence) => sequence <= shown.at(-1)) }};
        }})()"
    ));
    assert_eq!(answer["shown"], answer["stored"]);
}

#[test]
fn a_person_comes_in_follows_and_steers_and_the_page_outlives_its_host() {
    let Some(chromium) = chromium() else { return };
    let hostile = "<img src=x onerror=document.title='broken'>";
    let mut host = ServedHost::prepared(async |registry| {
        let processes = vec![
            elsewhere("approval-7", "Approve the invoice", &["invoice", "eu"]),
            elsewhere("approval-8", hostile, &["invoice"]),
            elsewhere("left-over", "Nobody wants this", &[]),
        ];
        register(registry, processes).await;
        wait_for_approval(registry, "approval-7").await;
    });
    let mut browser = Browser::start(chromium);

    // Without a session the page says how to come in, and shows nothing else.
    browser.go(&host.url(""));
    browser.until("document.querySelector('main').innerText.includes('proctor open')");
    let refusals = browser.problems();
    assert!(refusals.iter().all(|problem| problem.contains("401")), "{refusals:?}");

    // With the link it comes in; the link is good once.
    let link = host.link.clone();
    browser.go(&link);
    browser.until(&format!("{ROWS}.length === 3"));
    assert_eq!(browser.evaluate("location.pathname"), "/");
    assert_eq!(browser.evaluate(&format!("fetch({}).then(({{ status }}) => status)", json!(link))), 403);
    assert_eq!(browser.evaluate("document.querySelectorAll('main tbody img').length"), 0);
    assert!(
        browser
            .evaluate("document.querySelector('main').innerText")
            .as_str()
            .is_some_and(|text| text.contains(hostile))
    );
    browser.problems();

    // It finds by wait, state, tag and any part of a name.
    browser.click_on("waiting");
    browser
        .until(&format!("{ROWS}.join() === '#/process/approval-7' && document.querySelector('tbody .badge.waiting')"));
    browser.click_on("waiting");
    browser.click_on("abandoned");
    browser.until("document.querySelector('.empty').innerText.includes('No process is like this')");
    browser.click_on("running");
    browser.until(&format!("{ROWS}.length === 3"));
    browser.click("document.querySelector('input[name=tags]')");
    browser.type_text("invoice,eu");
    browser.press("Enter");
    browser.until(&format!("{ROWS}.join() === '#/process/approval-7'"));
    browser.go(&host.url(""));
    browser.until(&format!("{ROWS}.length === 3"));
    browser.press("/");
    browser.type_text("wants");
    browser.until(&format!("{ROWS}.join() === '#/process/left-over'"));
    browser.press("Escape");
    browser.until(&format!("{ROWS}.length === 3"));

    // It starts a command and sees its lines come.
    browser.press("n");
    browser.until("document.activeElement.closest('dialog[open]')");
    browser.type_text("n=0; while :; do n=$((n+1)); echo \"line $n\"; echo \"trouble $n\" >&2; sleep 0.2; done");
    browser.click_on("by a shell");
    browser.click_on("More");
    browser.click_on("may be run again");
    browser.click_on("Start");
    browser.until("location.hash.startsWith('#/process/sh-') && document.querySelector('.badge.running')");
    until_lines(&mut browser, 6);
    browser.until("document.querySelector('.line.stdout .text')?.textContent === 'line 1'");
    browser.until("document.querySelector('.line.stderr .text')?.textContent === 'trouble 1'");
    browser.until("document.querySelector('.timeline .attempt.running')");
    browser.until("document.querySelector('.card.lease').innerText.includes('proctor serve')");
    browser.until("document.querySelector('.card.where').innerText.includes('held by')");
    assert_no_gap_and_none_twice(&mut browser);

    // It stays where it is when it is told to, and goes on where things are.
    browser.press("f");
    browser.until(
        "[...document.querySelectorAll('button')].some(({ textContent }) => /Follow \\(\\d+ new\\)/.test(textContent))",
    );
    browser.press("f");
    assert_no_gap_and_none_twice(&mut browser);

    browser.reload();
    until_lines(&mut browser, 8);
    assert_no_gap_and_none_twice(&mut browser);
    assert_eq!(browser.problems(), Vec::<String>::new());

    // The host dies and another one comes: the page goes on by itself.
    host.kill();
    browser.until("document.getElementById('connection').innerText.includes('Host away')");
    host.start();
    browser.until("document.getElementById('connection').innerText.includes('Connected')");
    browser
        .until("[...document.querySelectorAll('.line.mark')].some(({ innerText }) => innerText.includes('attempt 2'))");
    let lines = browser.evaluate(&format!("{LINES}.length")).as_u64().expect("a number");
    until_lines(&mut browser, lines + 4);
    assert_no_gap_and_none_twice(&mut browser);
    let refused = browser.problems();
    assert!(refused.iter().all(|problem| problem.contains("net::ERR_")), "{refused:?}");

    // Cancel: it is asked once more, and then the outcome is there.
    browser.click_on("Cancel");
    browser.until("document.activeElement.closest('dialog[open]')");
    browser.press("Escape");
    browser.until("!document.querySelector('dialog')");
    browser.click_on("Cancel");
    browser.until("document.activeElement.closest('dialog[open]')");
    browser.type_text("seen enough");
    browser.click_on("Cancel the process");
    browser.until("document.querySelector('.badge.cancelled') && document.querySelector('.card.outcome').innerText.includes('seen enough')");
    browser.until("!document.querySelector('.actions').checkVisibility()");
    assert_no_gap_and_none_twice(&mut browser);

    // Signal: what is no JSON is not sent, and what is arrives.
    browser.press("Escape");
    browser.until(&format!("{ROWS}.length === 4"));
    browser.go(&host.url("#/process/approval-7"));
    browser.until("document.querySelector('h1').textContent === 'Approve the invoice'");
    browser.click_on("Signal");
    browser.until("document.activeElement.closest('dialog[open]')");
    // The name of what it waits for is there already.
    assert_eq!(browser.evaluate("document.activeElement.value"), "approve");
    browser.click("document.querySelector('dialog textarea')");
    browser.type_text("{\"by\":");
    browser.click_on("Send");
    browser.until("document.querySelector('dialog [role=alert]').textContent.includes('no JSON')");
    browser.click("document.querySelector('dialog textarea')");
    browser.type_text("\"Ada\"}");
    browser.click_on("Send");
    browser.until("!document.querySelector('dialog')");
    browser.click("document.querySelector('.moments-box > summary')");
    browser.until("document.querySelector('.moments').innerText.includes('signal approve')");
    browser.until("document.querySelector('.timeline .mark.signal')");
    assert_eq!(browser.problems(), Vec::<String>::new());

    // A refusal is told where it was asked.
    browser.click_on("Signal");
    browser.until("document.activeElement.closest('dialog[open]')");
    browser.evaluate("document.activeElement.select()");
    browser.type_text("unheard-of");
    browser.click_on("Send");
    browser.until("document.querySelector('dialog [role=alert]').textContent.includes('undeclared')");
    browser.press("Escape");
    let refused = browser.problems();
    assert!(refused.iter().all(|problem| problem.contains("422")), "{refused:?}");

    // Abandon.
    browser.go(&host.url("#/process/left-over"));
    browser.until("document.querySelector('h1').textContent === 'Nobody wants this'");
    browser.click_on("Abandon");
    browser.until("document.activeElement.closest('dialog[open]')");
    browser.click_on("Abandon the process");
    browser.until("document.querySelector('.badge.abandoned') && document.querySelector('.card.outcome').innerText.includes('asked for it')");

    // The list tells what became of them, by itself.
    browser.click_on("← Processes");
    browser
        .until("document.querySelector('tbody .badge.abandoned') && document.querySelector('tbody .badge.cancelled')");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn each_view_has_names_order_and_contrast_in_light_and_dark_wide_and_narrow() {
    let Some(chromium) = chromium() else { return };
    let host = ServedHost::prepared(async |registry| {
        register(registry, vec![elsewhere("approval-7", "Approve the invoice", &["invoice"])]).await;
        wait_for_approval(registry, "approval-7").await;
        leave_stuck(registry, "payment-1").await;
    });
    let mut browser = Browser::start(chromium);
    browser.go(&host.link);
    browser.until(&format!("{ROWS}.length === 2"));
    let start = |argv: Value| {
        let body = json!({ "process_id": argv[0], "command": { "argv": argv }, "tags": ["made"] }).to_string();
        format!(
            "fetch('/api/v1/processes', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: {} }})
                .then(({{ status }}) => status)",
            json!(body)
        )
    };
    assert_eq!(browser.evaluate(&start(json!(["sh", "-c", "echo fine; echo bad >&2; exit 3"]))), 201);
    assert_eq!(browser.evaluate(&start(json!(["echo", "\u{1b}[31mred\u{1b}[0m \u{1b}[2mdim\u{1b}[0m"]))), 201);
    browser.until("document.querySelector('tbody .badge.failed') && document.querySelector('tbody .badge.completed')");

    let views = [
        ("#/", format!("{ROWS}.length === 4")),
        (
            "#/process/sh",
            "document.querySelector('.card.outcome')?.checkVisibility() && document.querySelector('.line.stderr')"
                .to_owned(),
        ),
        ("#/process/echo", "document.querySelector('.line .ansi-red')".to_owned()),
        ("#/process/approval-7", "document.querySelector('.card.where .next')".to_owned()),
        ("#/process/unheard-of", "document.querySelector('.empty')?.innerText.includes('no such process')".to_owned()),
        ("#/process/payment-1", "document.querySelector('.callout')?.innerText.includes('a former owner')".to_owned()),
        ("#/attention", "document.querySelector('.stuck')?.innerText.includes('payment-1')".to_owned()),
    ];
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 320), ("dark", 320)] {
        browser.look(scheme, width);
        for (place, is_there) in &views {
            browser.go(&host.url(place));
            browser.until(is_there);
            let findings = browser.accessibility_findings();
            assert_eq!(findings, Vec::<String>::new(), "{place} in {scheme}, {width} px wide");
            let overflow =
                browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(overflow, 0, "{place}, {width} px wide");
        }
        browser.go(&host.url("#/"));
        browser.until(&views[0].1);
        for key in ["n", "?"] {
            browser.press(key);
            browser.until("document.querySelector('dialog[open]')");
            assert_eq!(browser.accessibility_findings(), Vec::<String>::new(), "the dialog of {key} in {scheme}");
            browser.press("Escape");
            browser.until("!document.querySelector('dialog')");
        }
    }
    let refused = browser.problems();
    assert!(refused.iter().all(|problem| problem.contains("404") && problem.contains("unheard-of")), "{refused:?}");
}

#[test]
fn the_keys_lead_through_the_page() {
    let Some(chromium) = chromium() else { return };
    let host =
        ServedHost::with((0..60).map(|at| elsewhere(&format!("p-{at:02}"), &format!("Number {at:02}"), &[])).collect());
    let mut browser = Browser::start(chromium);
    browser.go(&host.link);
    browser.until(&format!("{ROWS}.length === 50"));
    let focused = "document.activeElement.closest('tr') && document.activeElement.hash";
    let first = browser.evaluate(&format!("{ROWS}[0]"));
    let second = browser.evaluate(&format!("{ROWS}[1]"));
    browser.press("j");
    assert_eq!(browser.until(focused), first);
    browser.press("ArrowDown");
    browser.until(&format!("{focused} === {second}"));
    browser.press("k");
    browser.until(&format!("{focused} === {first}"));
    // What is read again leaves the focus where it is.
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
    browser.evaluate("new Promise((resolve) => new PerformanceObserver(resolve).observe({ type: 'resource' }))");
    browser.until(&format!("{focused} === {first}"));
    browser.press("Enter");
    browser
        .until(&format!("location.hash === {first} && document.querySelector('h1').textContent.startsWith('Number')"));
    browser.press("Escape");
    // The way back leads to the row it came from.
    browser.until(&format!("location.hash === '#/' && {focused} === {first}"));
    browser.press("]");
    browser.until(&format!("{ROWS}.length === 10 && document.activeElement.closest('tr')"));
    browser.press("[");
    browser.until(&format!("{ROWS}[0] === {first}"));
    browser.press("?");
    browser.until("document.querySelector('dialog[open]')?.innerText.includes('next and previous row')");
    browser.press("Escape");
    browser.press("/");
    browser.until("document.activeElement.id === 'search'");
    // In a field the keys are letters.
    browser.press("j");
    browser.until("document.activeElement.id === 'search' && document.activeElement.value === 'j'");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn a_long_list_weighs_no_more_than_a_page_of_it() {
    let Some(chromium) = chromium() else { return };
    let count: usize = env::var("PROCTOR_PAGE_PROCESSES").map_or(5_000, |text| text.parse().expect("a number"));
    let processes = (0..count).map(|at| elsewhere(&format!("p-{at:06}"), &format!("Number {at}"), &["many"]));
    let host = ServedHost::with(processes.collect());
    let mut browser = Browser::start(chromium);
    let asked = Instant::now();
    browser.go(&host.link);
    browser.until(&format!("{ROWS}.length === 50"));
    println!("{count} processes: {} ms to the first rows", asked.elapsed().as_millis());
    let nodes = browser.evaluate("document.querySelectorAll('*').length").as_u64().expect("a number");
    assert!(nodes < 1_500, "{nodes} elements");
    let bytes = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/api/')).reduce((sum, { transferSize }) => sum + transferSize, 0)";
    let bytes = browser.evaluate(bytes).as_u64().expect("a number");
    assert!(bytes < 1_500_000, "{bytes} bytes were read");

    // Any of them is found by the beginning of its id, without the others being looked through.
    let last = format!("p-{:06}", count - 1);
    browser.press("/");
    browser.type_text(&last);
    browser.until(&format!("{ROWS}.join() === '#/process/{last}'"));
    let nodes = browser.evaluate("document.querySelectorAll('*').length").as_u64().expect("a number");
    assert!(nodes < 1_500, "{nodes} elements");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// What a function of a module of the page answers to each of these, or the message of what it throws.
fn answers(browser: &mut Browser, module: &str, function: &str, arguments: &Value) -> Value {
    browser.evaluate(&format!(
        "import('/assets/{module}.js').then((module) => {arguments}.map((argument) => {{
            try {{ return module.{function}(argument); }} catch (error) {{ return error.message; }}
        }}))"
    ))
}

#[test]
fn the_pure_parts_of_the_page_do_what_they_say() {
    let Some(chromium) = chromium() else { return };
    let host = ServedHost::with(Vec::new());
    let mut browser = Browser::start(chromium);
    browser.go(&host.link);
    browser.until("document.querySelector('.empty')?.innerText.includes('No processes yet')");

    // A line is split as a shell would split it, and words become a line that is split into the same.
    let lines = json!([
        "make  -j4 all",
        "echo 'a b' \"c \\\" d\" e\\ f",
        "printf \"\\n\" ''",
        "a'b'\"c\"",
        "",
        "echo 'open",
        "echo \\",
    ]);
    let words = json!([
        ["make", "-j4", "all"],
        ["echo", "a b", "c \" d", "e f"],
        ["printf", "\\n", ""],
        ["abc"],
        [],
        "a quote ' is not closed",
        "there is nothing after the last backslash",
    ]);
    assert_eq!(answers(&mut browser, "shell_words", "shellWords", &lines), words);
    let words = json!([["echo", "it's", "$HOME", "", "a\nb", "plain-1.0/x"]]);
    let line = answers(&mut browser, "shell_words", "shellLine", &words);
    assert_eq!(answers(&mut browser, "shell_words", "shellWords", &line), words);
    let shell =
        answers(&mut browser, "shell_words", "needsShell", &json!(["a | b", "echo '|'", "echo $X", "ls", "a \\| b"]));
    assert_eq!(shell, json!([true, false, true, false, false]));

    // A stream is the same events wherever the network cuts it.
    let cut_everywhere = "import('/assets/event_stream.js').then(({ EventParser }) => {
        const text = ': hello\\r\\n\\r\\nevent: event\\nid: 1.1\\ndata: {\"a\":\\ndata: 1}\\n\\ndata:x\\r\\n\\r\\nid: 1.2\\n\\nevent: end\\rdata: y\\r\\r.';
        const whole = JSON.stringify(new EventParser().push(text));
        for (let at = 0; at <= text.length; at += 1) {
            const parser = new EventParser();
            const cut = JSON.stringify([...parser.push(text.slice(0, at)), ...parser.push(text.slice(at))]);
            if (cut !== whole) return `cut at ${at}: ${cut}`;
        }
        return whole;
    })";
    let events = json!([
        { "type": "event", "id": "1.1", "data": "{\"a\":\n1}" }, { "type": "message", "data": "x" }, { "type": "end", "data": "y" },
    ]);
    let told = browser.evaluate(cut_everywhere);
    assert_eq!(serde_json::from_str::<Value>(told.as_str().unwrap_or_default()).ok(), Some(events), "{told}");

    // What is written for a terminal keeps its words and its colours, and nothing else of it.
    let texts = json!([
        "a\u{1b}[31mb\u{1b}[0;1mc\u{1b}[Kd",
        "10%\r20%\r",
        "\u{1b}]0;title\u{7}x",
        "\u{1b}[38;5;31mz",
        "a\u{8}b"
    ]);
    let parts = answers(&mut browser, "terminal_text", "terminalParts", &texts);
    let text_of = |parts: &Value| {
        parts
            .as_array()
            .into_iter()
            .flatten()
            .map(|part| part["text"].as_str().unwrap_or("?"))
            .collect::<Vec<_>>()
            .concat()
    };
    assert_eq!(
        parts.as_array().expect("parts").iter().map(text_of).collect::<Vec<_>>(),
        ["abcd", "20%", "x", "z", "a\u{fffd}b"]
    );
    assert_eq!(parts[0][1]["style"]["colour"], "red");
    assert_eq!((&parts[0][2]["style"]["bold"], &parts[3][0]["style"]["colour"]), (&json!(true), &Value::Null));

    // The place before a prefix is before it, and behind what sorts before.
    let prefixes = ["deploy", "a ", "!", "\u{e000}x", "\u{a0}", "\u{10000}"];
    let before = answers(&mut browser, "process_search", "justBefore", &json!(prefixes));
    for (prefix, before) in prefixes.iter().zip(before.as_array().expect("places")) {
        let before = before.as_str().expect("a text");
        assert!(before < *prefix && !before.chars().any(char::is_control), "{before:?} before {prefix:?}");
    }
    assert!(before[0].as_str().is_some_and(|before| before > "deplox-9"));
    assert_eq!(browser.problems(), Vec::<String>::new());
}
