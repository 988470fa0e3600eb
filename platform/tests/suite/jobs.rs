//! Jobs, by a clock that the tests control: with the time of tokio paused, a sleep takes no time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use platform::App;
use platform::error::{Error, StartError};
use platform::http::Routes;
use platform::scheduler::{Clock, Job, Late, Run, Schedule, after, cron, daily_at, every};
use platform::services::Services;
use platform::testing::{NoSettings, PATIENCE, SERVICE, TestApp};
use tempfile::TempDir;

use crate::events::Events;

/// What ran, in its order.
type Notes = Arc<Mutex<Vec<String>>>;

const START: &str = "2026-01-01T00:00:00Z";

fn app() -> App<NoSettings, Services> {
    app_at(START)
}

/// An app whose clock shows this time now.
fn app_at(time: &str) -> App<NoSettings, Services> {
    App::new(async |services, _| Ok::<_, StartError>(services), |_: &NoSettings| Routes::new())
        .clock(Clock::starting_at(time.parse().unwrap()))
}

/// A job that notes the times of its runs, each of which takes so long.
fn noting(schedule: Schedule, notes: &Notes, takes: Duration) -> Job<Services> {
    named("noting", schedule, notes, takes)
}

fn named(name: &'static str, schedule: Schedule, notes: &Notes, takes: Duration) -> Job<Services> {
    let notes = Arc::clone(notes);
    Job::new(name, schedule, move |_, run: Run| {
        notes.lock().unwrap().push(run.tick().to_string());
        async move {
            tokio::time::sleep(takes).await;
            Ok(())
        }
    })
}

/// Runs an app for so long, and ends it.
async fn run_for(app: App<NoSettings, Services>, time: Duration) {
    run_with(app, &[], time).await;
}

/// The same with variables.
async fn run_with(app: App<NoSettings, Services>, variables: &[(&str, &str)], time: Duration) {
    let mut app = TestApp::start(&SERVICE, app, variables).await;
    let tasks = app.start_tasks();
    tokio::time::sleep(time).await;
    app.drain();
    tasks.join(Duration::from_mins(1)).await;
    app.close().await;
}

fn days(n: u64) -> Duration {
    Duration::from_hours(24 * n)
}

fn noted(notes: &Notes) -> String {
    notes.lock().unwrap().join(" ")
}

#[tokio::test(start_paused = true)]
async fn a_year_of_days_is_365_runs_at_one_local_time() {
    let notes = Notes::default();
    run_for(app().job(noting(daily_at("02:30", "Europe/Berlin"), &notes, Duration::ZERO)), days(365)).await;
    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), 365);
    // 364 days lie between the first and the last, and none is there twice.
    assert_eq!((notes[0].as_str(), notes[364].as_str()), ("2026-01-01T01:30:00Z", "2026-12-31T01:30:00Z"));
    assert_eq!(notes.iter().filter(|tick| tick.ends_with("T00:30:00Z")).count(), 210, "days of summer time");
}

#[tokio::test(start_paused = true)]
async fn a_period_does_not_drift_by_the_time_that_a_run_takes() {
    let notes = Notes::default();
    let job = noting(every(Duration::from_secs(10)), &notes, Duration::from_millis(1_234));
    run_for(app().job(job), Duration::from_secs(3_605)).await;
    let notes = notes.lock().unwrap();
    assert_eq!(notes.len(), 360);
    assert!(notes.iter().all(|tick| tick.ends_with("0Z")), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delay_and_a_cron_expression_run_when_they_should() {
    let (once, weekdays) = (Notes::default(), Notes::default());
    let mut jobs = vec![noting(after(Duration::from_secs(90)), &once, Duration::ZERO)];
    jobs.push(named("weekdays", cron("0 9 * * MON-FRI", "UTC"), &weekdays, Duration::ZERO));
    run_for(jobs.into_iter().fold(app(), App::job), days(7)).await;
    assert_eq!(noted(&once), "2026-01-01T00:01:30Z");
    // The first of January 2026 was a Thursday.
    assert_eq!(weekdays.lock().unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn late_runs_are_skipped_or_made_up_for() {
    // Each run takes two and a half periods.
    let run = async |late| {
        let notes = Notes::default();
        let job = noting(every(Duration::from_hours(1)), &notes, Duration::from_mins(150)).late(late);
        run_for(app().job(job), Duration::from_mins(8 * 60 + 10)).await;
        let hours: Vec<String> = notes.lock().unwrap().iter().map(|tick| tick[11..13].to_owned()).collect();
        hours.join(" ")
    };
    // It ends at 03:30, when 02:00 and 03:00 are late, and next runs at 04:00.
    assert_eq!(run(Late::Skip).await, "01 04 07");
    assert_eq!(run(Late::MakeUp).await, "01 02 03");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_or_panics_runs_again() {
    let notes = Notes::default();
    let of_job = Arc::clone(&notes);
    let job = Job::new("failing", every(Duration::from_secs(1)), move |_: Services, _| {
        let mut notes = of_job.lock().unwrap();
        notes.push("x".to_owned());
        let run = notes.len();
        drop(notes);
        assert!(run % 3 != 0, "the third run");
        async move { if run % 3 == 1 { Err(Error::internal("the first run")) } else { panic!("the second run") } }
    });
    run_for(app().job(job), Duration::from_millis(9_500)).await;
    assert_eq!(notes.lock().unwrap().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_during_a_run_stops_no_job() {
    let run = async |schedule, by| {
        let (events, _guard) = Events::keep();
        let (clock, notes) = (Clock::starting_at(START.parse().unwrap()), Notes::default());
        let of_job = (clock.clone(), Arc::clone(&notes));
        let job = Job::new("moving", schedule, move |_: Services, run: Run| {
            let (clock, notes) = of_job.clone();
            async move {
                notes.lock().unwrap().push(run.tick().to_string()[14..19].to_owned());
                if notes.lock().unwrap().len() == 1 {
                    clock.move_by(by);
                }
                Ok(())
            }
        });
        run_for(app().clock(clock).job(job), Duration::from_mins(3) + Duration::from_secs(30)).await;
        let reported = events.of("server.job").iter().filter(|line| line.contains("moved back")).count();
        (noted(&notes), reported)
    };
    let minutes = SignedDuration::from_mins;
    let minute = || every(Duration::from_mins(1));
    assert_eq!(run(minute(), minutes(-10)).await, ("01:00 52:00 53:00".to_owned(), 1));
    // The controls: a clock that nobody moves, and one that is adjusted.
    assert_eq!(run(minute(), minutes(0)).await, ("01:00 02:00 03:00".to_owned(), 0));
    let adjusted = SignedDuration::from_millis(-500);
    assert_eq!(run(minute(), adjusted).await, ("01:00 02:00 03:00".to_owned(), 0));
    // What is once is not twice.
    assert_eq!(run(after(Duration::from_mins(1)), minutes(-10)).await, ("01:00".to_owned(), 0));
}

/// A job whose first runs are done, fail, panic at the call, panic later, and never end.
fn of_every_outcome() -> Job<Services> {
    let runs = AtomicU32::new(0);
    Job::new("each", every(Duration::from_secs(1)), move |_: Services, _| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        assert!(run != 2, "at the call");
        async move {
            tokio::time::sleep(Duration::from_millis(250)).await;
            match run {
                0 => Ok(()),
                1 => Err(Error::internal("the disk is gone")),
                3 => panic!("later"),
                _ => std::future::pending().await,
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn each_run_is_one_line_with_its_time_its_process_its_token_and_its_outcome() {
    for is_single in [true, false] {
        let (events, _guard) = Events::keep();
        let job = of_every_outcome();
        let job = if is_single { job.single_process() } else { job };
        run_for(app().job(job), Duration::from_millis(5_500)).await;
        let lines = events.of("server.job");
        let expected = [
            ("INFO", 250, "done", ""),
            ("ERROR", 250, "failed", " cause=\"the disk is gone\""),
            ("ERROR", 0, "panicked", ""),
            ("ERROR", 250, "panicked", ""),
            // By the drain, which has a minute, and a moment for the end of the task.
            ("WARN", 60_600, "dropped", ""),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        let owner = lines[0].split(" owner=").nth(1).map(|rest| rest.split(' ').next().unwrap());
        assert_eq!(owner.is_some(), is_single, "{lines:#?}");
        for (number, (line, (level, ms, outcome, cause))) in (1..).zip(lines.iter().zip(expected)) {
            // The tokens of the folder, from 1 on.
            let process = owner.map_or(String::new(), |owner| format!(" owner={owner} token={number}"));
            let tick = format!("2026-01-01T00:00:0{number}Z");
            let expected = format!(
                "{level} server.job message=job job=\"each\" tick={tick}{process} ms={ms} outcome=\"{outcome}\"{cause}"
            );
            assert_eq!(*line, expected, "{lines:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_run_and_begins_no_other() {
    let notes = Notes::default();
    let of_job = Arc::clone(&notes);
    let job = Job::new("long", every(Duration::from_secs(1)), move |_: Services, run: Run| {
        let notes = Arc::clone(&of_job);
        async move {
            notes.lock().unwrap().push("begun".to_owned());
            run.shutdown().begun().await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            notes.lock().unwrap().push("ended".to_owned());
            Ok(())
        }
    });
    run_for(app().job(job), Duration::from_secs(5)).await;
    assert_eq!(noted(&notes), "begun ended");
}

/// An app as one of several processes: they share the folder of the locks.
async fn process(job: Job<Services>, locks: &TempDir) -> TestApp {
    process_at(START, job, locks).await
}

/// The same, with a clock that shows this time now.
async fn process_at(time: &str, job: Job<Services>, locks: &TempDir) -> TestApp {
    let locks = locks.path().to_str().unwrap();
    TestApp::start(&SERVICE, app_at(time).job(job), &[("SERVER__LOCK__DIR", locks)]).await
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_single_process_runs_once_in_all() {
    let locks = tempfile::tempdir().unwrap();
    let (single, all) = (Notes::default(), Notes::default());
    let second = || every(Duration::from_secs(1));
    let mut apps = Vec::new();
    for _ in 0..4 {
        apps.push(process(named("single", second(), &single, Duration::ZERO).single_process(), &locks).await);
        apps.push(process(named("all", second(), &all, Duration::ZERO), &locks).await);
    }
    let tasks: Vec<_> = apps.iter_mut().map(TestApp::start_tasks).collect();
    tokio::time::sleep(Duration::from_millis(60_500)).await;
    apps.iter().for_each(TestApp::drain);
    for tasks in tasks {
        tasks.join(Duration::from_mins(1)).await;
    }
    let mut ticks = single.lock().unwrap().clone();
    ticks.sort();
    let ran = ticks.len();
    ticks.dedup();
    assert_eq!((ran, ticks.len()), (60, 60));
    // The control: without `single_process` each runs it.
    assert_eq!(all.lock().unwrap().len(), 4 * 60);
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_with_two_clocks_the_one_that_is_ahead_runs_a_job_and_no_time_is_run_twice() {
    for late in [Late::Skip, Late::MakeUp] {
        let (events, _guard) = Events::keep();
        let locks = tempfile::tempdir().unwrap();
        let notes = Notes::default();
        let job =
            || noting(every(Duration::from_mins(1)), &notes, Duration::ZERO).single_process().late(late);
        let mut behind = process(job(), &locks).await;
        let mut ahead = process_at("2026-01-01T00:02:30Z", job(), &locks).await;
        let (of_behind, of_ahead) = (behind.start_tasks(), ahead.start_tasks());
        tokio::time::sleep(Duration::from_secs(320)).await;
        assert_eq!(noted(&notes).matches("2026-01-01T00:0").count(), 5, "{late:?}: {}", noted(&notes));
        let reports = events.of("server.job").into_iter();
        let reports: Vec<_> = reports.filter(|line| line.contains("a clock that is ahead")).collect();
        assert!(
            reports[0].starts_with("WARN ") && reports[0].contains(" mark=2026-01-01T00:03:00Z"),
            "{reports:?}"
        );
        // It ends, and the other one goes on when its clock has come there.
        ahead.drain();
        of_ahead.join(Duration::from_mins(1)).await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        behind.drain();
        of_behind.join(Duration::from_mins(1)).await;
        let expected: Vec<_> = (3..=10).map(|minute| format!("2026-01-01T00:{minute:02}:00Z")).collect();
        assert_eq!(*notes.lock().unwrap(), expected, "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_long_keeps_the_other_processes_from_running_the_job() {
    let locks = tempfile::tempdir().unwrap();
    let running = Arc::new(AtomicU32::new(0));
    let runs = Arc::new(AtomicU32::new(0));
    let mut apps = Vec::new();
    for _ in 0..3 {
        let (running, runs) = (Arc::clone(&running), Arc::clone(&runs));
        let job = Job::new("long", every(Duration::from_secs(1)), move |_: Services, _| {
            let (running, runs) = (Arc::clone(&running), Arc::clone(&runs));
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        apps.push(process(job.single_process(), &locks).await);
    }
    let tasks: Vec<_> = apps.iter_mut().map(TestApp::start_tasks).collect();
    tokio::time::sleep(Duration::from_secs(30)).await;
    apps.iter().for_each(TestApp::drain);
    for tasks in tasks {
        tasks.join(Duration::from_mins(1)).await;
    }
    assert!((8..=12).contains(&runs.load(Ordering::SeqCst)), "{runs:?}");
}

/// In real time: what the locks cost lies between two runs, and another process may come between them.
#[tokio::test]
async fn late_runs_of_a_job_of_a_single_process_are_made_up_for_once_in_all() {
    const PERIOD: Duration = Duration::from_millis(20);
    let locks = tempfile::tempdir().unwrap();
    let ticks = Arc::new(Mutex::new(Vec::new()));
    let mut apps = Vec::new();
    for _ in 0..2 {
        let of_job = Arc::clone(&ticks);
        let job = Job::new("single", every(PERIOD), move |_: Services, run: Run| {
            let ticks = Arc::clone(&of_job);
            async move {
                ticks.lock().unwrap().push(run.tick());
                // The first one takes as long as the next 50.
                let is_first = ticks.lock().unwrap().len() == 1;
                tokio::time::sleep(if is_first { 50 * PERIOD } else { Duration::from_millis(1) }).await;
                Ok(())
            }
        });
        apps.push(process(job.late(Late::MakeUp).single_process(), &locks).await);
    }
    let tasks: Vec<_> = apps.iter_mut().map(TestApp::start_tasks).collect();
    let begun = Instant::now();
    while ticks.lock().unwrap().len() < 100 {
        assert!(begun.elapsed() < PATIENCE, "not in time");
        tokio::time::sleep(PERIOD).await;
    }
    apps.iter().for_each(TestApp::drain);
    for tasks in tasks {
        tasks.join(Duration::from_mins(1)).await;
    }
    let ticks = ticks.lock().unwrap();
    let steps: Vec<_> = ticks.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis()).collect();
    assert!(steps.iter().all(|step| *step == 20), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_lock_of_a_late_run() {
    let locks = tempfile::tempdir().unwrap();
    let job = || {
        let job = Job::new("long", every(Duration::from_secs(1)), |_: Services, _| async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            Ok(())
        });
        job.late(Late::MakeUp).single_process()
    };
    let (mut first, mut second) = (process(job(), &locks).await, process(job(), &locks).await);
    let _running = first.start_tasks();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let waiting = second.start_tasks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    second.drain();
    let begun = tokio::time::Instant::now();
    waiting.join(Duration::from_mins(1)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_restart_makes_up_for_the_runs_of_a_job_of_a_single_process() {
    let locks = tempfile::tempdir().unwrap();
    let folder = [("SERVER__LOCK__DIR", locks.path().to_str().unwrap())];
    let run = async |late, is_single| {
        let notes = Notes::default();
        let job = || {
            let job = named("restarted", every(Duration::from_hours(1)), &notes, Duration::ZERO).late(late);
            if is_single { job.single_process() } else { job }
        };
        run_with(app_at("2026-01-01T00:59:00Z").job(job()), &folder, Duration::from_mins(2)).await;
        // Nothing runs at 02:00, 03:00 and 04:00, and this one ends before 05:00.
        run_with(app_at("2026-01-01T04:30:00Z").job(job()), &folder, Duration::from_mins(2)).await;
        let hours: Vec<String> = notes.lock().unwrap().iter().map(|tick| tick[11..13].to_owned()).collect();
        hours.join(" ")
    };
    assert_eq!(run(Late::MakeUp, true).await, "01 02 03 04");
    // The controls: nothing says when another job ran last; and what is not made up for. (The mark is at 04:00 now.)
    assert_eq!(run(Late::MakeUp, false).await, "01");
    std::fs::remove_dir_all(locks.path()).unwrap();
    assert_eq!(run(Late::Skip, true).await, "01");
}

#[tokio::test(start_paused = true)]
async fn a_time_at_which_no_process_ran_a_job_is_in_the_log_of_the_next_run() {
    let (events, _guard) = Events::keep();
    let locks = tempfile::tempdir().unwrap();
    let folder = [("SERVER__LOCK__DIR", locks.path().to_str().unwrap())];
    let notes = Notes::default();
    let job = || noting(every(Duration::from_secs(1)), &notes, Duration::ZERO).single_process();
    let reports = || {
        let lines = events.of("server.job").into_iter();
        lines.filter(|line| line.contains("no process ran the job")).collect::<Vec<_>>()
    };
    run_with(app().job(job()), &folder, Duration::from_millis(5_500)).await;
    // The control: up to here each time had its run.
    assert!(reports().is_empty(), "{:?}", reports());
    // Nothing runs at :06 to :10.
    run_with(app_at("2026-01-01T00:00:10.5Z").job(job()), &folder, Duration::from_secs(2)).await;
    let [report] = &reports()[..] else { panic!("{:?}", events.all()) };
    assert!(report.starts_with("WARN ") && report.contains(" job=\"noting\""), "{report}");
    assert!(report.contains(" missed=5 ") && report.contains(" after=2026-01-01T00:00:05Z"), "{report}");
    assert_eq!(notes.lock().unwrap().len(), 5 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_switched_off_does_not_run() {
    let notes = Notes::default();
    let job = noting(every(Duration::from_secs(1)), &notes, Duration::ZERO);
    run_for(app().job(job.only_if(|_| false)), Duration::from_secs(5)).await;
    assert_eq!(noted(&notes), "");
}

#[tokio::test]
async fn a_job_that_cannot_run_is_an_error_at_the_start() {
    let open = async |jobs: Vec<Job<Services>>| {
        let app = jobs.into_iter().fold(app(), App::job);
        app.into_router(&SERVICE, [("SERVER__STORE__URL".into(), "memory:".into())])
            .await
            .unwrap_err()
            .to_string()
    };
    let notes = Notes::default();
    let job = |schedule| noting(schedule, &notes, Duration::ZERO);
    assert_eq!(
        open(vec![job(daily_at("2:30 pm", "UTC"))]).await,
        "job noting: '2:30 pm' is no time of the day such as 02:30"
    );
    let error = open(vec![job(after(Duration::ZERO)).single_process()]).await;
    assert!(error.starts_with("job noting: after() is another time in each process"), "{error}");
    assert!(error.contains("leave single_process() out, or use every(), daily_at() or cron()"), "{error}");
    let twice = open(vec![job(after(Duration::ZERO)), job(after(Duration::ZERO))]).await;
    assert_eq!(twice, "job noting: another job has this name");
}
