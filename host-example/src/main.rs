//! The `proctor` binary: it tells the guard, which is this same binary re-executed, from the command line proper.
//!
//! The guard is dispatched before anything else is set up, so that it starts fast and holds nothing: neither an async
//! runtime nor a parsed command line.

mod api;
mod attempt;
mod backup;
mod bench;
mod cli;
mod client;
mod command_args;
mod command_executor;
mod command_process;
mod completions;
mod copy_progress;
mod default_id;
mod duration_text;
mod event_follower;
mod event_view;
mod events;
mod explain;
mod failure;
mod host;
mod interrupt;
mod list;
mod notice;
mod open;
mod output_sheet;
mod own_run;
mod page;
mod paint;
mod place_choice;
mod process_control;
mod process_source;
mod process_view;
mod process_wait;
mod prune;
mod recovery;
mod recovery_news;
mod restore;
mod run;
mod serve;
mod sheet;
mod show;
mod signal;
mod stop_request;
mod store;
mod store_choice;
mod store_set;
mod submit;
mod suggestion;
mod time_text;
mod verify;
mod wait;

use std::{env, process::ExitCode};

use host_example::guard;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|first| first == guard::GUARD_SUBCOMMAND) {
        return guard::keep_watch(args);
    }
    cli::main()
}
