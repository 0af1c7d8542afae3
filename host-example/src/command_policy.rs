//! Which commands a host that stays may start.
//!
//! It owns the rule. It does not know how a command came here: through a door, or with the store.

use std::{collections::BTreeSet, path::Path};

use crate::command_process::CommandProcess;

/// Any command, or some programs alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CommandPolicy(Option<BTreeSet<String>>);

impl CommandPolicy {
    /// The named programs alone; any where none are named.
    pub(crate) const fn new(programs: Option<BTreeSet<String>>) -> Self {
        Self(programs)
    }

    /// Why a command may not be started here.
    ///
    /// Where programs are named, what a name means must not be the caller's to say: neither by variables, of which many a program takes
    /// orders, nor by a directory.
    pub(crate) fn refusal(&self, command: &CommandProcess) -> Option<String> {
        let programs = self.0.as_ref()?;
        let program = command.argv.first().map_or("", String::as_str);
        if !programs.contains(program) {
            return Some(format!("this host does not start `{program}`; `--allow-command` adds programs"));
        }
        if program.contains('/') && !Path::new(program).is_absolute() {
            return Some(format!("this host starts programs by name or by a whole path, and `{program}` is neither"));
        }
        if let Some(name) = command.env.keys().chain(&command.env_names).next() {
            return Some(format!(
                "this host starts some programs only, and lets nobody set variables for them: found `{name}`"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(program: &str) -> CommandProcess {
        CommandProcess {
            argv: vec![program.to_owned()],
            cwd: "/".to_owned(),
            env: Default::default(),
            env_names: Vec::new(),
            max_output_bytes: 1,
            time_limit_ms: None,
        }
    }

    #[test]
    fn any_command_may_be_started_where_none_is_named() {
        let mut any = command("./anything");
        any.env_names.push("PATH".to_owned());
        assert_eq!(CommandPolicy::new(None).refusal(&any), None);
        assert!(CommandPolicy::new(Some(BTreeSet::new())).refusal(&command("ls")).is_some());
    }

    #[test]
    fn a_name_means_what_it_means_to_the_host() {
        let named = ["ls", "/bin/ls", "./ls"].map(str::to_owned).into();
        let policy = CommandPolicy::new(Some(named));
        assert_eq!(policy.refusal(&command("ls")), None);
        assert_eq!(policy.refusal(&command("/bin/ls")), None);
        let mut elsewhere = command("ls");
        elsewhere.env.insert("PATH".to_owned(), "/tmp/evil".to_owned());
        let mut passed = command("ls");
        passed.env_names.push("LD_PRELOAD".to_owned());
        for refused in [command("cat"), command("./ls"), elsewhere, passed] {
            assert!(policy.refusal(&refused).is_some(), "{refused:?}");
        }
    }
}
