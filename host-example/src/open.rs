//! `proctor open`: a link by which a browser comes in to the page of a running host.
//!
//! It owns how the link is told. That it is good once, the host sees to.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{HostClient, HostPlace},
    failure::{Failure, FailureKind},
    notice::say,
    place_choice::PlaceChoice,
    sheet::Sheet,
};

/// Prints a link.
#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

#[derive(Deserialize)]
struct LoginLink {
    path: String,
    /// The whole of it, as the host has it.
    url: String,
}

/// Runs the verb.
///
/// # Errors
/// When no host is there, or it makes no link.
pub(crate) async fn run(args: OpenArgs) -> Result<ExitCode, Failure> {
    let client = args.place.host()?;
    let link: LoginLink = client.post(&["login-links"], &json!({})).await?.answer;
    let url = link_at(&client, &link)?;
    let mut sheet = Sheet::new();
    if args.json {
        sheet.line(json!({"url": url}))?;
    } else {
        sheet.line(&url)?;
    }
    sheet.flush()?;
    say("the link is good once, for ten minutes");
    Ok(ExitCode::SUCCESS)
}

/// Where the page is: by the address that we came by, or by the one that the host has.
fn link_at(client: &HostClient, link: &LoginLink) -> Result<String, Failure> {
    match client.place() {
        HostPlace::Socket(_) => Ok(link.url.clone()),
        HostPlace::Web(_) => {
            let page = client.page(&link.path);
            let page = page.ok_or_else(|| Failure::new(FailureKind::Protocol, format!("no link: `{}`", link.path)))?;
            Ok(page.to_string())
        }
    }
}
