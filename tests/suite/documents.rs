//! Every command in the README and in `docs/` is run: `curl` and the program here, `make` by `.ci/run`, or by `make check-all`,
//! which is the same script with its long stages.

use std::fs;
use std::path::Path;
use std::process::Command;

use platform::testing::TestServer;

use crate::support::PROGRAM;

/// The lines of the `sh` blocks of one document.
fn commands(text: &str) -> Vec<&str> {
    let mut within = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            within = line == "```sh";
        } else if within && !line.trim().is_empty() && !line.starts_with('#') {
            found.push(line.trim());
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<(String, String)> {
    let folders =
        ["docs", "platform/docs"].iter().filter_map(|folder| fs::read_dir(root().join(folder)).ok());
    let docs = folders.flatten().map(|entry| entry.unwrap().path());
    let markdown = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let paths = markdown.chain([root().join("README.md")]);
    paths.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// The first word of the comment behind a command: the expected status.
fn expected_status(command: &str) -> Option<&str> {
    let (_, comment) = command.split_once(" # ")?;
    comment.split([' ', ',']).next()
}

/// Runs the `curl` command against this server, and compares the status with the one in the comment.
fn run_curl(command: &str, server: &TestServer, id: &mut String) -> Result<(), String> {
    let expected = expected_status(command).ok_or("has no expected status: end it with ' # 200'")?;
    let (call, _) = command.split_once(" # ").ok_or("has no comment")?;
    let call = call.replace("localhost:5000", &server.address.to_string()).replace("/ID", &format!("/{id}"));
    let output =
        Command::new("sh").arg("-c").arg(&call).current_dir(root()).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(location) = text.lines().find_map(|line| line.strip_prefix("location: ")) {
        location.rsplit('/').next().unwrap_or_default().clone_into(id);
    }
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with(&format!("HTTP/1.1 {expected}")) {
        Ok(())
    } else {
        Err(format!("the response begins with {first:?}"))
    }
}

/// The commands in running text: `make …` and `scripts/…` between two backquotes, without the variables before them.
fn commands_within(text: &str) -> Vec<&str> {
    let spans = text.split("\n```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let bare = spans.map(|span| {
        let words = span.split(' ').take_while(|word| word.contains('=') && !word.contains('/'));
        span.get(words.map(|word| word.len() + 1).sum::<usize>()..).unwrap_or_default()
    });
    bare.filter(|span| span.starts_with("make ") || span.starts_with("scripts/")).collect()
}

/// Checks that `.ci/run` runs a script, by itself or by a `make` target.
fn check_script(command: &str, ci: &str) -> Result<(), String> {
    let script = command.split(' ').next().unwrap_or_default();
    let makefile = fs::read_to_string(root().join("Makefile")).map_err(|error| error.to_string())?;
    let target = makefile.split("\n\n").find(|rule| rule.contains(script)).and_then(|rule| {
        let name = rule.lines().find(|line| !line.starts_with(['.', '#', '\t']) && line.contains(": "))?;
        name.split(':').next()
    });
    if ci.contains(script) || target.is_some_and(|target| check_make(&format!("make {target}"), ci).is_ok()) {
        Ok(())
    } else {
        Err(format!(".ci/run does not run {script}"))
    }
}

/// A script without its comments.
fn without_comments(script: &str) -> String {
    script
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .fold(String::new(), |all, line| all + line + "\n")
}

/// Checks that `.ci/run` runs a `make` target. `make run` is run here, with its arguments; `make check-all` is `.ci/run`.
fn check_make(command: &str, ci: &str) -> Result<(), String> {
    let call = command.split(" # ").next().unwrap_or_default().trim();
    let target = call.strip_prefix("make").unwrap_or_default().split_whitespace().next().unwrap_or("help");
    if target == "run"
        && let Some((_, arguments)) = call.split_once("ARGS=\"")
    {
        let arguments: Vec<&str> = arguments.trim_end_matches('"').split(' ').collect();
        let ends_by_itself = ["config", "routes", "--help"].contains(&arguments[0]);
        if ends_by_itself {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            let output = PROGRAM.run(folder.path(), &arguments, &[]);
            return if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) };
        }
        let without_port: Vec<&str> =
            arguments.chunks(2).filter(|pair| pair[0] != "--port").flatten().copied().collect();
        drop(PROGRAM.start(&without_port));
        return Ok(());
    }
    if target == "check-all" {
        let makefile = fs::read_to_string(root().join("Makefile")).map_err(|error| error.to_string())?;
        let rule = makefile.split("\n\n").find(|rule| rule.contains("\ncheck-all:"));
        let is_ci = rule.is_some_and(|rule| rule.contains("CI_LONG=1 .ci/run"));
        return if is_ci { Ok(()) } else { Err("`make check-all` does not run .ci/run".to_owned()) };
    }
    let known = ci.split(|c: char| c.is_whitespace() || "\"';)".contains(c)).collect::<Vec<_>>();
    let run =
        known.windows(2).any(|pair| pair == ["make", target]) || (target == "help" && ci.contains("make\n"));
    if run { Ok(()) } else { Err(format!(".ci/run does not run `make {target}`")) }
}

#[test]
fn every_command_of_the_documents_works() {
    // What .ci/run runs, by itself and through the scripts that it calls.
    let scripts = [".ci/run", "scripts/smoke", "scripts/test-dev", "scripts/test-fork"];
    let ci: String =
        scripts.map(|script| without_comments(&fs::read_to_string(root().join(script)).unwrap())).concat();
    let mut failures = Vec::new();
    for (document, text) in documents() {
        let server = PROGRAM.start(&[]);
        let mut id = "none".to_owned();
        for command in commands(&text) {
            let result = match command.split_whitespace().next().unwrap() {
                "curl" => run_curl(command, &server, &mut id),
                "make" => check_make(command, &ci),
                other => Err(format!("no test knows how to run `{other}`")),
            };
            if let Err(why) = result {
                failures.push(format!("{document}: {command}\n    {why}"));
            }
        }
        for command in commands_within(&text) {
            let make = command.starts_with("make ");
            let result = if make { check_make(command, &ci) } else { check_script(command, &ci) };
            if let Err(why) = result {
                failures.push(format!("{document}: {command}\n    {why}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_command_that_does_not_work_is_found() {
    // The control of the test above.
    let server = PROGRAM.start(&[]);
    let wrong = "curl -si localhost:5000/nowhere # 200";
    assert!(run_curl(wrong, &server, &mut String::new()).is_err());
    assert!(run_curl("curl -si localhost:5000/nowhere # 404", &server, &mut String::new()).is_ok());
    let prose =
        "Run `A=1 make nonsense` or `scripts/none x`, not `curl`.\n```sh\nmake a\n```\nThen `make test`.";
    assert_eq!(commands_within(prose), ["make nonsense", "scripts/none x", "make test"]);
    assert!(check_script("scripts/none x", "make test\n").is_err());
    assert!(check_script("scripts/measure server", "make measure\n").is_ok());
    assert!(check_make("make nonsense", "make test\nmake lint\n").is_err());
    assert!(check_make("make test", "make test\nmake lint\n").is_ok());
    // Also what only `make check-all` runs; and a comment runs nothing.
    assert!(check_make("make bench", "long 'bench' make bench\n").is_ok());
    assert!(check_make("make bench", &without_comments("  # make bench\nmake lint\n")).is_err());
    assert!(check_make("make check-all", "").is_ok());
}
