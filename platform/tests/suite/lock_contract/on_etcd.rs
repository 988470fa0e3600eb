//! What only etcd has: leases that end, a server that is cut off, frozen, killed and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use platform::App;
use platform::error::{Error, Kind};
use platform::http::Routes;
use platform::lock::{LeaseLost, LockManager, Wait};
use platform::scheduler::{Job, every};
use platform::services::Services;
use platform::testing::{NoSettings, PATIENCE, SERVICE, TestApp, until};
use serde_json::json;
use tempfile::TempDir;

use super::{TestLocks, is_held, take};
use crate::events::Events;
use crate::proofs::rounds;
use crate::tcp_proxy::TcpProxy;

/// The server that the tests use.
pub fn server() -> String {
    std::env::var("TEST_ETCD_ENDPOINT")
        .expect("TEST_ETCD_ENDPOINT names no server; `make test-all` starts one")
}

/// `HOST:PORT` of the server.
fn address() -> String {
    server().trim_start_matches("http://").to_owned()
}

/// The leases of the keys below the prefix of these locks, the oldest key first.
async fn leases(etcd: &mut Client, locks: &TestLocks) -> Vec<i64> {
    let prefix = locks.settings["etcd"]["prefix"].as_str().unwrap();
    let found = etcd.get(prefix, Some(GetOptions::new().with_prefix())).await.unwrap();
    let mut keys = found.kvs().to_vec();
    keys.sort_by_key(etcd_client::KeyValue::create_revision);
    keys.iter().map(etcd_client::KeyValue::lease).collect()
}

/// Waits until the queues have so many keys.
async fn wait_for_leases(etcd: &mut Client, locks: &TestLocks, count: usize) -> Vec<i64> {
    let start = Instant::now();
    loop {
        let leases = leases(etcd, locks).await;
        if leases.len() == count {
            return leases;
        }
        assert!(start.elapsed() < PATIENCE, "{leases:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An etcd of a test's own.
struct Etcd {
    /// `None` before its first start.
    process: Option<Child>,
    ports: [u16; 2],
    scheme: &'static str,
    folder: TempDir,
}

impl Etcd {
    fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), "http")
    }

    /// With `https`, the certificates are in the folder.
    fn start_with(folder: TempDir, scheme: &'static str) -> Self {
        let mut etcd = Self::stopped(folder, scheme);
        etcd.start_again();
        etcd
    }

    /// One that has its ports, and is not started yet.
    fn stopped(folder: TempDir, scheme: &'static str) -> Self {
        let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = listeners.map(|listener| listener.local_addr().unwrap().port());
        Self { process: None, ports, scheme, folder }
    }

    fn spawn(folder: &TempDir, [client, peer]: [u16; 2], scheme: &str) -> Child {
        let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.path().join("data")).args(["--name", "own"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("own={peer}")]).current_dir(folder.path());
        if scheme == "https" {
            command.args(["--cert-file", "server.pem", "--key-file", "server.key"]);
            command.args(["--client-cert-auth", "--trusted-ca-file", "ca.pem"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[0])
    }

    fn locks(&self) -> TestLocks {
        TestLocks::at_etcd(&self.endpoint())
    }

    fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }

    fn kill(&mut self) {
        let process = self.process.as_mut().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Some(Self::spawn(&self.folder, self.ports, self.scheme));
    }

    /// Waits until it responds to a client of its own.
    async fn responds(&self) {
        let ask = async || Client::connect([self.endpoint()], None).await?.get("a", None).await;
        let start = Instant::now();
        while let Err(error) = ask().await {
            assert!(start.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Waits until locks can be acquired again, and returns how long that took.
async fn works_again(locks: &LockManager) -> Duration {
    let start = Instant::now();
    while locks.acquire("again", Wait::No).await.is_err() {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    start.elapsed()
}

/// Acquiring fails with 503 within 3 s, and some time for a slow machine.
async fn fails_within_3_s(locks: &LockManager) {
    for wait in [Wait::No, Wait::Forever] {
        let start = Instant::now();
        let error = locks.acquire("down", wait).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.cause().contains("etcd http://127.0.0.1:"), "{}", error.cause());
        assert!(start.elapsed() < Duration::from_millis(3_500), "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_waiter_whose_lease_has_died_gets_an_error_and_never_the_lock() {
    let mut etcd = Client::connect([server()], None).await.unwrap();
    for round in 0..20 {
        let locks = TestLocks::etcd();
        let (one, other) = (locks.open(), locks.open());
        let lease = take(&one, "a").await;
        let waiter = tokio::spawn(async move { other.acquire("a", Wait::Forever).await });
        let [_, waiting] = wait_for_leases(&mut etcd, &locks, 2).await[..] else { unreachable!() };
        // It calls `Lock` now, and the next renewal is far away.
        tokio::time::sleep(Duration::from_millis(50)).await;
        etcd.lease_revoke(waiting).await.unwrap();
        lease.release().await.unwrap();
        let error = waiter.await.unwrap().expect_err("etcd 3.4 says that it has the lock");
        assert!(LeaseLost::caused(&error) && error.kind() == Kind::Unavailable, "{round}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_lease_is_renewed_beyond_its_time_to_live_and_a_waiter_too() {
    let locks = TestLocks::etcd();
    let (one, other) = (locks.open(), locks.open());
    let lease = take(&one, "a").await;
    let waiter = tokio::spawn(async move { other.acquire("a", Wait::Forever).await.unwrap().unwrap() });
    let lost = tokio::time::timeout(Duration::from_secs(5), lease.lost()).await;
    assert!(lost.is_err() && lease.is_valid() && !waiter.is_finished());
    let token = lease.fencing_token();
    lease.release().await.unwrap();
    assert!(waiter.await.unwrap().fencing_token() > token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn who_gives_up_leaves_no_key() {
    let mut locks = TestLocks::etcd();
    // What is left to expire is there for longer than this test waits.
    locks.settings["etcd"]["time_to_live"] = json!("5m");
    let mut etcd = Client::connect([server()], None).await.unwrap();
    let opened = locks.open();
    let lease = take(&opened, "a").await;
    assert!(opened.acquire("a", Wait::UpTo(Duration::from_millis(100))).await.unwrap().is_none());
    let waiting = opened.acquire("a", Wait::Forever);
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
    wait_for_leases(&mut etcd, &locks, 1).await;
    lease.release().await.unwrap();
    assert!(leases(&mut etcd, &locks).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_late_release_never_ends_the_lock_of_the_next_holder() {
    let locks = TestLocks::etcd();
    let mut etcd = Client::connect([server()], None).await.unwrap();
    let (one, other) = (locks.open(), locks.open());
    let late = take(&one, "a").await;
    let held = leases(&mut etcd, &locks).await[0];
    etcd.lease_revoke(held).await.unwrap();
    let next = take(&other, "a").await;
    assert!(next.fencing_token() > late.fencing_token());
    let error = late.release().await.unwrap_err();
    assert!(LeaseLost::caused(&error), "{error:?}");
    assert!(next.is_valid() && is_held(&one, "a").await);
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn work_is_done_when_only_the_answer_to_its_release_is_lost() {
    let mut proxy = TcpProxy::started(&address()).await;
    let mut locks = TestLocks::etcd();
    locks.settings["etcd"]["endpoints"] = json!([format!("http://{}", proxy.address)]);
    let mut etcd = Client::connect([server()], None).await.unwrap();
    let opened = locks.open();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let work = tokio::spawn(async move {
        let work = async |_: &_| {
            released.await.unwrap();
            Ok(7)
        };
        opened.with_lock("a", Wait::No, work).await
    });
    wait_for_leases(&mut etcd, &locks, 1).await;
    proxy.mute(true);
    release.send(()).unwrap();
    wait_for_leases(&mut etcd, &locks, 0).await;
    // The second attempt is told that there is no such lease.
    proxy.stop().await;
    proxy.mute(false);
    proxy.start().await;
    assert_eq!(work.await.unwrap().unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_holder_that_is_cut_off_learns_of_the_loss_before_another_one_has_the_lock() {
    for round in 0..rounds(6, 20) {
        let mut proxy = TcpProxy::started(&address()).await;
        let mut locks = TestLocks::etcd();
        let other = locks.open();
        locks.settings["etcd"]["endpoints"] = json!([format!("http://{}", proxy.address)]);
        let one = locks.open();
        let ran_to_its_end = tokio::spawn(async move {
            let work = one.with_lock("a", Wait::No, async |lease| {
                lease.lost().await;
                std::future::pending::<Result<(), Error>>().await
            });
            let error = work.await.unwrap_err();
            assert!(LeaseLost::caused(&error), "{error:?}");
            Instant::now()
        });
        let mut etcd = Client::connect([server()], None).await.unwrap();
        wait_for_leases(&mut etcd, &locks, 1).await;
        // At another moment of the renewals each time, within the first time to live.
        tokio::time::sleep(Duration::from_millis(u64::from(130 * round % 2_000))).await;
        if round % 2 == 0 {
            proxy.freeze(true);
        } else {
            proxy.stop().await;
        }
        let next = take(&other, "a").await;
        let granted = Instant::now();
        let lost = ran_to_its_end.await.unwrap();
        assert!(lost < granted, "round {round}: lost {:?} after the grant", lost - granted);
        next.release().await.unwrap();
    }
}

/// Notes when it is dropped.
struct NoteOfDrop(Arc<OnceLock<Instant>>);

impl Drop for NoteOfDrop {
    fn drop(&mut self) {
        // A later run ends too.
        let _ = self.0.set(Instant::now());
    }
}

/// In one thread, so that its events are kept.
#[tokio::test]
#[ignore = "needs etcd: make test-all"]
async fn a_job_that_is_cut_off_is_cancelled_before_another_one_has_its_lock() {
    let (events, _guard) = Events::keep();
    let proxy = TcpProxy::started(&address()).await;
    let locks = TestLocks::etcd();
    let dropped: Arc<OnceLock<Instant>> = Arc::default();
    let of_job = Arc::clone(&dropped);
    let begun = Arc::new(AtomicU32::new(0));
    let runs = Arc::clone(&begun);
    let job = Job::new("cut off", every(Duration::from_secs(1)), move |_: Services, _| {
        runs.fetch_add(1, Ordering::SeqCst);
        let note = NoteOfDrop(Arc::clone(&of_job));
        async move {
            let _note = note;
            std::future::pending().await
        }
    });
    let app = App::new(async |services, _| Ok(services), |_: &NoSettings| Routes::new());
    let variables = [
        ("SERVER__LOCK__SERVER", "true"),
        ("SERVER__LOCK__ETCD__ENDPOINTS", &format!("['http://{}']", proxy.address)),
        ("SERVER__LOCK__ETCD__PREFIX", locks.settings["etcd"]["prefix"].as_str().unwrap()),
        ("SERVER__LOCK__ETCD__TIME_TO_LIVE", "2s"),
    ];
    let mut app = TestApp::start(&SERVICE, app.job(job.single_process()), &variables).await;
    let tasks = app.start_tasks();
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    // The control: its lease is renewed, and the run goes on.
    let other = locks.open();
    let longer = locks.time_to_live + Duration::from_secs(1);
    assert!(other.acquire("job cut off", Wait::UpTo(longer)).await.unwrap().is_none());
    assert!(dropped.get().is_none() && events.of("server.job").is_empty(), "{:?}", events.all());

    proxy.freeze(true);
    let next = take(&other, "job cut off").await;
    let granted = Instant::now();
    let dropped = *dropped.get().expect("the run goes on while another one has the lock");
    assert!(dropped < granted, "dropped {:?} after the grant", dropped - granted);
    let lines = events.of("server.job");
    let lost: Vec<_> = lines.iter().filter(|line| line.contains(" outcome=\"lock lost\"")).collect();
    assert!(lost.len() == 1 && lost[0].starts_with("ERROR "), "{lines:?}");
    let token: u64 = lost[0].split(" token=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(token < next.fencing_token());
    proxy.freeze(false);
    app.drain();
    assert!(tasks.join(PATIENCE).await);
    assert_eq!(begun.load(Ordering::SeqCst), 1, "it ran while another one had the lock");
    next.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_server_that_is_down_at_the_start_costs_3_s_and_is_used_within_5_s_when_it_comes() {
    let mut etcd = Etcd::stopped(tempfile::tempdir().unwrap(), "http");
    let opened = etcd.locks().open();
    fails_within_3_s(&opened).await;
    assert!(opened.ping().await.is_err());
    etcd.start_again();
    etcd.responds().await;
    assert!(works_again(&opened).await < Duration::from_secs(5));
    take(&opened, "a").await.release().await.unwrap();
    opened.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_server_that_is_frozen_or_killed_costs_3_s_and_works_again_within_5_s() {
    let mut etcd = Etcd::start();
    let mut locks = etcd.locks();
    // It takes etcd some seconds to start.
    locks.settings["etcd"]["time_to_live"] = json!("20s");
    // It is down at the start, or is just starting.
    let opened = locks.open();
    works_again(&opened).await;
    let token = take(&opened, "a").await.fencing_token();
    etcd.signal("STOP");
    fails_within_3_s(&opened).await;
    assert!(opened.ping().await.is_err());
    etcd.signal("CONT");
    assert!(works_again(&opened).await < Duration::from_secs(5));
    // A holder goes through a restart: etcd gives leases their full time again.
    let held = take(&opened, "held").await;
    etcd.kill();
    etcd.start_again();
    etcd.responds().await;
    assert!(works_again(&opened).await < Duration::from_secs(5));
    assert!(held.is_valid() && is_held(&locks.open(), "held").await);
    etcd.kill();
    fails_within_3_s(&opened).await;
    etcd.start_again();
    etcd.responds().await;
    assert!(works_again(&opened).await < Duration::from_secs(5));
    assert!(take(&opened, "a").await.fencing_token() > token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn of_several_members_one_that_is_silent_or_gone_stops_nothing() {
    let mut proxy = TcpProxy::started(&address()).await;
    let mut locks = TestLocks::etcd();
    locks.settings["etcd"]["endpoints"] = json!([format!("http://{}", proxy.address), server()]);
    for freezes in [true, false] {
        let opened = locks.open();
        take(&opened, "a").await.release().await.unwrap();
        if freezes {
            proxy.freeze(true);
        } else {
            proxy.stop().await;
        }
        for _ in 0..3 {
            take(&opened, "a").await.release().await.unwrap();
        }
        proxy.freeze(false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn a_user_logs_in_and_a_wrong_password_is_503_and_not_shown() {
    let etcd = Etcd::start();
    let mut locks = etcd.locks();
    works_again(&locks.open()).await;
    let mut admin = Client::connect([etcd.endpoint()], None).await.unwrap();
    admin.user_add("root", "hunter2", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    locks.settings["etcd"]["user"] = json!("root");
    for (password, is_right) in [("hunter2", true), ("hunter3", false)] {
        locks.settings["etcd"]["password"] = json!(password);
        let (one, other) = (locks.open(), locks.open());
        if is_right {
            let lease = take(&one, "a").await;
            let waiter = tokio::spawn(async move { take(&other, "a").await });
            // Beyond the time to live, so that renewals are allowed too.
            assert!(tokio::time::timeout(Duration::from_secs(3), lease.lost()).await.is_err());
            lease.release().await.unwrap();
            waiter.await.unwrap().release().await.unwrap();
        } else {
            let error = one.acquire("a", Wait::No).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.cause().contains("auth") && !error.cause().contains(password), "{}", error.cause());
        }
    }
}

/// Makes a certificate for 127.0.0.1, signed by the authority, or by itself as the authority.
fn certificate(folder: &TempDir, name: &str, authority: bool) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key")]);
    command.args(["-out", &format!("{name}.pem")]).current_dir(folder.path());
    if !authority {
        command.args(["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd: make test-all"]
async fn tls_takes_the_authority_and_the_client_s_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    for (name, authority) in [("ca", true), ("server", false), ("client", false)] {
        certificate(&folder, name, authority);
    }
    let etcd = Etcd::start_with(folder, "https");
    let path = |file: &str| json!(etcd.folder.path().join(file));
    let mut locks = etcd.locks();
    locks.settings["etcd"]["tls"] = json!({"enabled": true, "ca": path("ca.pem"), "certificate": path("client.pem"), "key": path("client.key")});
    let opened = locks.open();
    works_again(&opened).await;
    take(&opened, "a").await.release().await.unwrap();
    // The controls: an authority that is not asked for, and no certificate.
    locks.settings["etcd"]["tls"]["ca"] = json!("");
    assert!(locks.open().acquire("a", Wait::No).await.is_err());
    locks.settings["etcd"]["tls"] =
        json!({"enabled": true, "ca": path("ca.pem"), "certificate": "", "key": ""});
    assert!(locks.open().acquire("a", Wait::No).await.is_err());
}
