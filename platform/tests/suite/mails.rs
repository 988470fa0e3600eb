//! Mails: kept with what needs them, sent once, tried again, given up; and the page of a developer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use platform::App;
use platform::clock::Clock;
use platform::error::{Kind, Result};
use platform::http::{NoContent, Route, Routes};
use platform::mail::{KeptMail, Mail, Mailer};
use platform::services::Services;
use platform::store::{Batch, Dao, Entity, Filter};
use platform::testing::{NoSettings, SERVICE, TestApp, TestPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::events::Events;

#[derive(Deserialize, Serialize)]
struct User {
    name: String,
}

impl Entity for User {
    const COLLECTION: &'static str = "users";
    const UNIQUE: &'static [&'static str] = &["name"];
}

fn hello(to: &str) -> Result<Mail> {
    Ok(Mail::new(to, "Grüße", "Open <b>\nhttps://shop.example/?a=1&b=2 now")?.html("<p>Grüße"))
}

async fn register(mailer: Mailer, users: Dao<User>, mut batch: Batch) -> Result<NoContent> {
    batch.insert(&users, &User { name: "ada".to_owned() })?;
    mailer.add(&mut batch, &hello("ada@a.example")?)?;
    batch.commit().await?;
    Ok(NoContent)
}

fn routes() -> Routes<Services> {
    Routes::new().entity::<User>().mail().route(Route::at("/users").post(register))
}

/// The app, and its clock.
async fn start(environment: &[(&str, &str)]) -> (TestApp, Clock) {
    let clock = Clock::starting_at(Timestamp::now());
    let app = App::new(async |services: Services, _| Ok(services), |_: &NoSettings| routes());
    let environment = [&[FROM], environment].concat();
    (TestApp::start(&SERVICE, app.clock(clock.clone()), &environment).await, clock)
}

/// The sender, without which there is no SMTP.
const FROM: (&str, &str) = ("SERVER__MAIL__FROM", "no-reply@shop.example");

async fn kept(app: &TestApp) -> Vec<KeptMail> {
    let all = app.services().dao::<KeptMail>().get_all(Filter::all()).await.unwrap();
    all.into_iter().map(|stored| stored.value).collect()
}

/// A server of mails that answers to each recipient as it is told, and takes what it is not told of.
struct Server {
    url: String,
    /// The answers that are left, the next one last.
    answers: Arc<Mutex<Vec<&'static str>>>,
    /// What was taken.
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://ada:hunter2@{}", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
        let server = Self { url, answers, mails: Arc::default() };
        let (answers, mails) = (Arc::clone(&server.answers), Arc::clone(&server.mails));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::talk(stream, Arc::clone(&answers), Arc::clone(&mails)));
            }
        });
        server
    }

    async fn talk(
        stream: impl AsyncRead + AsyncWrite + Unpin,
        answers: Arc<Mutex<Vec<&'static str>>>,
        mails: Arc<Mutex<Vec<String>>>,
    ) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 test\r\n").await?;
        stream.flush().await?;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let of_log_in = answers.lock().unwrap().last().is_some_and(|next| next.starts_with("535"));
            let answer = match line.get(..4).unwrap_or_default() {
                "EHLO" => "250-test\r\n250 AUTH PLAIN",
                "AUTH" if of_log_in => answers.lock().unwrap().pop().unwrap_or_default(),
                "AUTH" => "235 welcome",
                "RCPT" => answers.lock().unwrap().pop().unwrap_or("250 ok"),
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    stream.flush().await?;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        stream.read_line(&mut mail).await?;
                    }
                    mails.lock().unwrap().push(mail);
                    "250 taken"
                }
                _ => "250 ok",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
            stream.flush().await?;
        }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID: ")).unwrap()
}

#[tokio::test]
async fn a_batch_that_is_refused_keeps_no_mail() {
    let (app, _) = start(&[]).await;
    assert_eq!(app.post("/users", "").await.status, 204);
    assert_eq!(kept(&app).await.len(), 1);
    assert_eq!(app.post("/users", "").await.status, 409);
    assert_eq!(kept(&app).await.len(), 1);
}

#[tokio::test]
async fn a_mail_arrives_with_both_parts_and_leaves_the_store() {
    let server = Server::start(&[]).await;
    let (app, _) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    let mailer = app.services().mailer();
    assert_eq!(mailer.deliver_due(None).await.unwrap(), 1);
    assert_eq!(mailer.deliver_due(None).await.unwrap(), 0);
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    for part in ["Subject: =?utf-8?b?R3LDvMOfZQ==?=", "text/plain", "text/html", "To: ada@a.example"] {
        assert!(mails[0].contains(part), "{part} {}", mails[0]);
    }
    assert!(kept(&app).await.is_empty());
}

#[tokio::test]
async fn a_mail_that_is_refused_for_now_is_tried_again_after_growing_pauses() {
    let server = Server::start(&["451 later", "451 later"]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    let mailer = app.services().mailer();
    let mut pauses = Vec::new();
    for _ in 0..2 {
        assert_eq!(mailer.deliver_due(None).await.unwrap(), 0);
        let kept = kept(&app).await.remove(0);
        assert!(kept.failed.unwrap().contains("451"));
        let pause = kept.due.unwrap() - clock.now().as_millisecond();
        // It is not tried before.
        assert_eq!(mailer.deliver_due(None).await.unwrap(), 0);
        clock.move_by(SignedDuration::from_millis(pause + 1));
        pauses.push(pause);
    }
    assert!((9_000..=10_000).contains(&pauses[0]) && (19_000..=20_000).contains(&pauses[1]), "{pauses:?}");
    assert_eq!(mailer.deliver_due(None).await.unwrap(), 1);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_is_an_error_in_the_log_and_stays() {
    let (events, _guard) = Events::keep();
    let server = Server::start(&["550 no ada@a.example here"]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    let mailer = app.services().mailer();
    mailer.deliver_due(None).await.unwrap();
    clock.move_by(SignedDuration::from_hours(24));
    assert_eq!(mailer.deliver_due(None).await.unwrap(), 0);
    let kept = kept(&app).await.remove(0);
    assert_eq!((kept.due, kept.attempts), (None, 1));
    assert!(kept.failed.unwrap().contains("550"));
    let log = events.of("server.mail").join("\n");
    assert!(log.starts_with("ERROR") && log.contains("domain=\"a.example\""), "{log}");
    assert!(log.contains("550") && !log.contains("ada@"), "{log}");
    assert!(!events.all().join("\n").contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_password_of_the_server_ends_no_mail() {
    let server = Server::start(&["535 wrong password"]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    assert_eq!(app.services().mailer().deliver_due(None).await.unwrap(), 0);
    assert!(kept(&app).await.remove(0).failed.unwrap().contains("535"));
    clock.move_by(SignedDuration::from_hours(1));
    assert_eq!(app.services().mailer().deliver_due(None).await.unwrap(), 1);
}

#[tokio::test]
async fn a_mail_is_given_up_after_its_last_attempt() {
    let (events, _guard) = Events::keep();
    let server = Server::start(&["451 later"; 13]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    for attempt in 0..13 {
        assert_eq!(events.of("server.mail").join("").contains("ERROR"), attempt == 12);
        app.services().mailer().deliver_due(None).await.unwrap();
        clock.move_by(SignedDuration::from_hours(2));
    }
    let kept = kept(&app).await.remove(0);
    assert_eq!((kept.due, kept.attempts), (None, 12));
    assert_eq!(server.answers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    // The control: the same server, by the name that needs no TLS, gets it in the tests above.
    let server = Server::start(&[]).await;
    let url = server.url.replace("127.0.0.1", "127.0.0.2").replace("ada:hunter2@", "");
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let url =
        url.rsplit_once(':').unwrap().0.to_owned() + &format!(":{}", listener.local_addr().unwrap().port());
    let (answers, mails) = (Arc::clone(&server.answers), Arc::clone(&server.mails));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        Server::talk(stream, answers, mails).await
    });
    let (app, _) = start(&[("SERVER__MAIL__URL", &url)]).await;
    app.post("/users", "").await;
    assert_eq!(app.services().mailer().deliver_due(None).await.unwrap(), 0);
    assert!(kept(&app).await.remove(0).failed.unwrap().contains("STARTTLS"));
    assert!(server.mails().is_empty());
}

/// Its environment names the server, and perhaps the authority of that.
#[tokio::test]
#[ignore = "another test starts it"]
async fn one_process_that_sends_by_tls() {
    let Ok(url) = std::env::var("TEST_SMTPS_URL") else { return };
    let (app, _) = start(&[("SERVER__MAIL__URL", &url)]).await;
    app.post("/users", "").await;
    assert_eq!(app.services().mailer().deliver_due(None).await.unwrap(), 1, "{:?}", kept(&app).await);
}

#[tokio::test]
async fn over_tls_only_a_server_that_the_operating_system_trusts_gets_a_mail() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), TestPair::for_this_machine());
    pair.write(folder.path());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![pair.der()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtps://ada:hunter2@localhost:{}", listener.local_addr().unwrap().port());
    let (answers, mails) = (Arc::default(), Arc::<Mutex<Vec<String>>>::default());
    let taken = Arc::clone(&mails);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(Server::talk(stream, Arc::clone(&answers), Arc::clone(&taken)));
        }
    });
    for (is_trusted, file) in [(false, "keys/none.pem"), (true, "keys/public-key.pem")] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "mails::one_process_that_sends_by_tls"]);
        child.env("SSL_CERT_FILE", folder.path().join(file)).env("TEST_SMTPS_URL", &url);
        let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), is_trusted, "{said}");
        assert!(is_trusted || said.to_lowercase().contains("certificate"), "{said}");
        assert_eq!(mails.lock().unwrap().len(), usize::from(is_trusted));
    }
}

#[tokio::test]
async fn a_mail_whose_deletion_was_missed_has_the_same_message_id() {
    let server = Server::start(&[]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    let mails = app.services().dao::<KeptMail>();
    let before = mails.get_all(Filter::all()).await.unwrap().remove(0);
    app.services().mailer().deliver_due(None).await.unwrap();
    // As if the process had ended between the two.
    mails.insert_with_id(&before.id, &before.value).await.unwrap();
    clock.move_by(SignedDuration::from_hours(1));
    app.services().mailer().deliver_due(None).await.unwrap();
    let sent = server.mails();
    assert_eq!(sent.len(), 2);
    assert_eq!(message_id(&sent[0]), message_id(&sent[1]));
}

#[tokio::test]
async fn a_process_that_has_lost_the_lock_sends_nothing() {
    let server = Server::start(&["451 later"]).await;
    let (app, clock) = start(&[("SERVER__MAIL__URL", &server.url)]).await;
    app.post("/users", "").await;
    let mailer = app.services().mailer();
    mailer.deliver_due(Some(2)).await.unwrap();
    clock.move_by(SignedDuration::from_hours(1));
    assert_eq!(mailer.deliver_due(Some(1)).await.unwrap_err().kind(), Kind::Conflict);
    assert!(server.mails().is_empty());
    assert_eq!(mailer.deliver_due(Some(2)).await.unwrap(), 1);
}

#[tokio::test]
async fn two_processes_send_each_mail_once() {
    let server = Server::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store").display());
    let environment = [
        ("SERVER__MAIL__URL", server.url.as_str()),
        ("SERVER__MAIL__INTERVAL", "100ms"),
        FROM,
        ("SERVER__STORE__URL", &store),
        ("SERVER__LOCK__DIR", folder.path().to_str().unwrap()),
    ];
    let mut one = TestApp::with_routes(routes(), &environment).await;
    let mut other = TestApp::with_routes(routes(), &environment).await;
    for _ in 0..20 {
        one.services().mailer().send(&hello("ada@a.example").unwrap()).await.unwrap();
    }
    let _tasks = (one.start_tasks(), other.start_tasks());
    let all_sent = async {
        while !kept(&one).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_sent).await.unwrap();
    let mails = server.mails();
    let mut ids: Vec<&str> = mails.iter().map(|mail| message_id(mail)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((mails.len(), ids.len()), (20, 20));
}

#[tokio::test]
async fn mails_are_files_that_a_developer_can_see() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file:{}", folder.path().join("mails").display());
    let environment = [("SERVER__MAIL__URL", url.as_str()), ("SERVER__SERVER__DEBUG", "on")];
    let (app, _) = start(&environment).await;
    assert!(app.get("/debug/mails").await.text().contains("None was sent yet."));
    app.post("/users", "").await;
    assert_eq!(app.services().mailer().deliver_due(None).await.unwrap(), 1);
    assert!(kept(&app).await.is_empty());
    let page = app.get("/debug/mails").await;
    for part in [
        "Grüße",
        "To ada@a.example",
        "Open &#60;b&#62;\n<a",
        r#"<a href="https://shop.example/?a=1&#38;b=2">https://shop.example/?a=1&#38;b=2 </a>now</pre>"#,
        r#"sandbox loading="lazy" srcdoc="&#60;p&#62;Grüße""#,
    ] {
        assert!(page.text().contains(part), "{part} {}", page.text());
    }
}

#[tokio::test]
async fn the_page_of_mails_is_only_under_debug_and_only_for_files() {
    let debug = ("SERVER__SERVER__DEBUG", "on");
    let smtp = ("SERVER__MAIL__URL", "smtp://localhost:1");
    let shows = async |environment: &[(&str, &str)]| {
        let (app, _) = start(environment).await;
        app.get("/debug/mails").await.status == 200
    };
    assert!(shows(&[debug]).await);
    assert!(!shows(&[]).await);
    assert!(!shows(&[debug, smtp]).await);
    // A name that leads here and is not ours: a page of it could read the links.
    let (app, _) = start(&[debug]).await;
    let host = [("host", "evil.example:5000")];
    assert_eq!(app.call("GET".parse().unwrap(), "/debug/mails", &host, "").await.status, 403);
}
