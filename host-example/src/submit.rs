//! `proctor submit`: a command as a durable process that a host runs, while the caller goes on.
//!
//! It owns what the caller is told, and how long it stays. It does not know how the process gets where it belongs.

use std::process::ExitCode;

use clap::Args;
use registry_actor::domain::{ProcessId, ProcessRegistration};

use crate::{
    api::process_view::ProcessView,
    client::HostClient,
    command_args::CommandArgs,
    command_process::CommandProcess,
    event_follower::{EventFollower, Followed},
    failure::{Failure, FailureKind},
    notice::say,
    output_sheet::OutputSheet,
    place_choice::{NewPlace, PlaceChoice, no_host},
    process_control::{Directory, ProcessControl, Submitted},
    process_source::ProcessSource,
    process_view,
    sheet::Sheet,
    store::StoreReader,
    wait,
};

/// How often an id is drawn once more that is taken.
const REDRAWS: u32 = 3;

/// Submits a command.
#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    command: CommandArgs,
    /// Wait for the outcome, and exit with its code. To interrupt the waiting leaves the process alone.
    #[arg(long, short, conflicts_with = "follow")]
    wait: bool,
    /// Show its output as it comes instead of its id, and exit with the code of its outcome. To interrupt it leaves the process alone.
    #[arg(long, short)]
    follow: bool,
    /// Print the process as one JSON object instead of its id.
    #[arg(long, conflicts_with = "follow")]
    json: bool,
    #[command(flatten)]
    place: PlaceChoice,
}

/// Runs the verb.
///
/// # Errors
/// When it cannot be submitted, or when the outcome does not become known.
pub(crate) async fn run(args: SubmitArgs) -> Result<ExitCode, Failure> {
    let command = args.command.command()?;
    let registration = args.command.registration(&command)?;
    let place = args.place.for_new()?;
    let stays = args.wait || args.follow;
    let at_rest = match &place {
        NewPlace::Host(_) => None,
        // Nobody would end the wait. A store that is there may be that of a host that comes up.
        NewPlace::Store { path, .. } if stays && !path.exists() => return Err(no_host(path)),
        NewPlace::Store { path, socket } => Some((path.clone(), socket.clone())),
    };
    let control = ProcessControl::of_new(place, "submit").await?;
    let host = match &control {
        ProcessControl::Host(client) => Some(client.clone()),
        ProcessControl::Store(_) => None,
    };
    if let (Some((path, _)), None, true) = (&at_rest, &host, stays) {
        control.close().await;
        return Err(no_host(path));
    }
    let submitted = submit_as_new(&args, &command, &control, registration).await;
    control.close().await;
    let (id, Submitted { is_new, process }) = submitted?;
    let source = match host {
        Some(client) => source_of(&args.place, &client),
        None => {
            let (path, socket) = at_rest.unwrap_or_default();
            if process.outcome.is_none() {
                let place = path.display();
                say(format_args!(
                    "no host is running on {place}: the process starts with the next one, `proctor serve`"
                ));
            }
            ProcessSource::of_store(StoreReader::open(&path)?, socket)
        }
    };
    if !is_new {
        say(format_args!("`{id}` was submitted before; it is {}", process_view::status_in_words(&process)));
    }
    tell(&args, &process, &source)?;
    if args.follow {
        return follow(source, id).await;
    }
    if args.wait {
        return wait::outcome(&source, &id).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// The source that finds the process again when the host has been started anew: its store, where that is at hand.
fn source_of(choice: &PlaceChoice, client: &HostClient) -> ProcessSource {
    choice.beside_host().unwrap_or_else(|| ProcessSource::of_host(client.clone()))
}

/// Submits it under the id that was typed, or under one that nobody has.
async fn submit_as_new(
    args: &SubmitArgs,
    command: &CommandProcess,
    control: &ProcessControl,
    mut registration: ProcessRegistration,
) -> Result<(ProcessId, Submitted), Failure> {
    let mut draws_left = if args.command.names_id() { 0 } else { REDRAWS };
    loop {
        let id = registration.id.clone();
        match submit(control, registration, directory(args, control)).await {
            Ok(submitted) if submitted.is_new || draws_left == 0 => return Ok((id, submitted)),
            Err(failure) if failure.kind() != FailureKind::CannotCreate || draws_left == 0 => return Err(failure),
            // Somebody else's process has the id that was drawn.
            Ok(_) | Err(_) => {}
        }
        draws_left -= 1;
        registration = args.command.registration(command)?;
    }
}

async fn submit(
    control: &ProcessControl,
    registration: ProcessRegistration,
    directory: Directory,
) -> Result<Submitted, Failure> {
    // The registry takes any parent, for it may come later. Who types one means one that is there, or was.
    if let Some(parent) = registration.parent.as_ref().map(|parent| &parent.process_id)
        && *parent != registration.id
        && !control.knows(parent).await?
    {
        return Err(Failure::new(FailureKind::NoInput, format!("the parent `{parent}` is unknown there")));
    }
    control.submit(registration, directory).await
}

/// A host with an address may be another machine, which need not have the directory that we are in.
fn directory(args: &SubmitArgs, control: &ProcessControl) -> Directory {
    match control {
        ProcessControl::Host(client) if client.is_remote() && !args.command.names_directory() => Directory::OfHost,
        _ => Directory::Told,
    }
}

fn tell(args: &SubmitArgs, process: &ProcessView, source: &ProcessSource) -> Result<(), Failure> {
    let mut sheet = Sheet::new();
    if args.json {
        sheet.line(process_view::to_json(process, source))?;
    } else if args.follow {
        // Stdout is the command's.
        say(format_args!("submitted `{}`", process.process_id));
    } else {
        sheet.line(&process.process_id)?;
    }
    sheet.flush()
}

/// Shows the output as it comes. It goes on without a reader: the outcome is wanted too.
async fn follow(source: ProcessSource, id: ProcessId) -> Result<ExitCode, Failure> {
    let mut output = OutputSheet::new();
    let mut follower = EventFollower::new(source, id, 0).await?;
    loop {
        match follower.next().await? {
            Followed::Event(event) if output.is_read() => output.event(&event)?,
            Followed::Event(_) => {}
            Followed::End(process) => return Ok(wait::told(&process)),
        }
    }
}
