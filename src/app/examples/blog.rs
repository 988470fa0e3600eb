//! `/blog`: the blog of Tornado's demos. The first account may write, and everybody may read, also by a feed.
//!
//! Needs: accounts

use ammonia::Builder;
use askama::Template;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Redirect, Response};
use platform::error::{Error, FieldError, Kind, Result};
use platform::http::{Caller, Created, Form, Format, Html, Json, Path, Query, Route, Routes, segment};
use platform::services::Services;
use platform::store::{Dao, Direction, Entity, Expected, Filter, Sort, field};
use pulldown_cmark::{Parser, html};
use serde::{Deserialize, Serialize};

use crate::app::AppState;
use crate::app::accounts::{Admin, User};

/// The entries on the first page, and in the feed.
const RECENT: u64 = 10;

/// The most entries in the archive.
const ARCHIVED: u64 = 1_000;

/// The most characters of a title, and of a text.
const MAX_TITLE: usize = 200;
const MAX_TEXT: usize = 100_000;

/// The routes of the example.
pub fn routes() -> Routes<AppState> {
    Routes::new()
        .entity::<Entry>()
        .route(Route::at("/blog").get(recent))
        .route(Route::at("/blog/archive").get(archive))
        .route(Route::at("/blog/feed").get(feed))
        .route(Route::at("/blog/compose").get(compose).post(publish))
        .route(Route::at("/blog/entries/{slug}").get(read))
}

/// An entry, as it is stored.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    /// What its address ends with.
    slug: String,
    title: String,
    /// Markdown. It becomes HTML when it is read, so that what the sanitiser learns holds for old entries too.
    text: String,
    author: String,
    /// RFC 3339, in UTC: it sorts as the time does.
    published: String,
    updated: String,
}

impl Entity for Entry {
    const COLLECTION: &'static str = "blog_entries";
    const INDEXES: &'static [&'static str] = &["slug", "published"];
    const UNIQUE: &'static [&'static str] = &["slug"];
}

impl Entry {
    /// The text as HTML: of what an author can write in it, nothing can run.
    fn html(&self) -> String {
        let mut written = String::new();
        html::push_html(&mut written, Parser::new(&self.text));
        Builder::default().clean(&written).to_string()
    }
}

/// What pages have in common.
struct Frame {
    service: String,
    stylesheet: String,
    own_stylesheet: String,
    url: String,
    format: Format,
    now: String,
}

impl FromRequestParts<AppState> for Frame {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self> {
        let services = Services::from_ref(state);
        Ok(Self {
            service: services.name().to_owned(),
            stylesheet: services.assets().url("accounts.css"),
            own_stylesheet: services.assets().url("blog.css"),
            url: services.public_url().to_owned(),
            format: Format::from_request_parts(parts, state).await?,
            // To the second, so that it sorts as a text.
            now: format!("{:.0}", services.clock().now()),
        })
    }
}

#[derive(Template)]
#[template(path = "blog/list.html")]
struct ListPage {
    frame: Frame,
    entries: Vec<Entry>,
    whole: bool,
}

#[derive(Template)]
#[template(path = "blog/entry.html")]
struct EntryPage {
    frame: Frame,
    id: String,
    entry: Entry,
    may_write: bool,
}

#[derive(Template)]
#[template(path = "blog/compose.html")]
struct ComposePage {
    frame: Frame,
    draft: Draft,
    error: String,
}

#[derive(Template)]
#[template(path = "blog/feed.xml")]
struct Feed {
    frame: Frame,
    entries: Vec<Entry>,
}

/// What is sent to publish an entry, or with an id, to change one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Draft {
    id: String,
    title: String,
    text: String,
}

/// Which entry is changed.
#[derive(Debug, Deserialize)]
struct Which {
    #[serde(default)]
    id: String,
}

async fn newest(entries: &Dao<Entry>, most: u64) -> Result<Vec<Entry>> {
    let found =
        entries.page_after(Filter::All, Sort::by("published", Direction::Descending), None, most).await?;
    Ok(found.items.into_iter().map(|found| found.value).collect())
}

async fn recent(frame: Frame, entries: Dao<Entry>) -> Result<Response> {
    let entries = newest(&entries, RECENT).await?;
    let json = Json(entries.clone());
    Ok(frame.format.pick(Html(ListPage { frame, entries, whole: true }), json))
}

async fn archive(frame: Frame, entries: Dao<Entry>) -> Result<Response> {
    let entries = newest(&entries, ARCHIVED).await?;
    let json = Json(entries.clone());
    Ok(frame.format.pick(Html(ListPage { frame, entries, whole: false }), json))
}

async fn read(
    frame: Frame,
    caller: Option<Caller<User>>,
    entries: Dao<Entry>,
    Path(slug): Path<String>,
) -> Result<Response> {
    let found = entries.get_first(field("slug").eq(slug)).await?;
    let found = found.ok_or_else(|| Error::not_found("No Such Entry"))?;
    let may_write = caller.is_some_and(|caller| caller.allows::<Admin>());
    let (id, entry) = (found.id, found.value);
    let json = Json(entry.clone());
    Ok(frame.format.pick(Html(EntryPage { frame, id, entry, may_write }), json))
}

/// An Atom feed (RFC 4287).
async fn feed(frame: Frame, entries: Dao<Entry>) -> Result<Response> {
    let entries = newest(&entries, RECENT).await?;
    let text = Feed { frame, entries }.render().map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, "application/atom+xml; charset=utf-8")], text).into_response())
}

/// The form of a new entry, or of one that changes.
async fn compose(
    frame: Frame,
    _: Caller<User, Admin>,
    entries: Dao<Entry>,
    Query(Which { id }): Query<Which>,
) -> Result<Response> {
    let draft = match entries.get(&id).await? {
        Some(found) => Draft { id, title: found.value.title, text: found.value.text },
        None => Draft::default(),
    };
    Ok(Format::Html.pick(Html(ComposePage { frame, draft, error: String::new() }), ()))
}

async fn publish(
    frame: Frame,
    caller: Caller<User, Admin>,
    entries: Dao<Entry>,
    Form(draft): Form<Draft>,
) -> Result<Response> {
    match store(&entries, &draft, caller.id(), &frame.now).await {
        Ok(slug) => {
            let path = format!("/blog/entries/{}", segment(&slug));
            Ok(frame.format.pick(Redirect::to(&path), Created::at(path.clone())))
        }
        Err(error) => frame.format.refuse(error, |error| {
            let error = error.errors().first().map_or(error.message(), |first| &first.message).to_owned();
            Html(ComposePage { frame, draft, error })
        }),
    }
}

/// Stores a draft, and returns the slug of its entry. The slug of an entry stays, so that links to it hold.
async fn store(entries: &Dao<Entry>, draft: &Draft, author: &str, now: &str) -> Result<String> {
    let title = draft.title.trim();
    check("title", title, MAX_TITLE)?;
    check("text", &draft.text, MAX_TEXT)?;
    if !draft.id.is_empty() {
        let changed = entries.modify_if(&draft.id, Expected::Any, |entry| {
            title.clone_into(&mut entry.title);
            draft.text.clone_into(&mut entry.text);
            now.clone_into(&mut entry.updated);
            Ok(())
        });
        return Ok(changed.await?.ok_or_else(|| Error::not_found("No Such Entry"))?.value.slug);
    }
    let (text, author, published) = (draft.text.clone(), author.to_owned(), now.to_owned());
    let updated = published.clone();
    let mut entry = Entry { slug: slug(title), title: title.to_owned(), text, author, published, updated };
    loop {
        match entries.insert(&entry).await {
            Ok(_) => return Ok(entry.slug),
            // As in Tornado's blog.
            Err(error) if error.kind() == Kind::Conflict => entry.slug.push_str("-2"),
            Err(error) => return Err(error),
        }
    }
}

fn check(name: &str, text: &str, most: usize) -> Result<()> {
    // XML has no such characters (XML 1.0, section 2.2): with one of them, no reader can read the feed.
    let is_none = |c: char| (c.is_control() && !"\t\n\r".contains(c)) || matches!(c, '\u{fffe}' | '\u{ffff}');
    let message = match text.chars().count() {
        0 => format!("The {name} is empty."),
        count if count > most => format!("The {name} has {count} characters: at most {most}."),
        _ if text.chars().any(is_none) => format!("The {name} has a character that no text has."),
        _ => return Ok(()),
    };
    let wrong = FieldError { pointer: format!("/{name}"), message };
    Err(Error::unprocessable("Invalid Form").with_errors(vec![wrong]))
}

/// The words of a title with hyphens between them.
fn slug(title: &str) -> String {
    let lower = title.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() { "entry".to_owned() } else { slug }
}
