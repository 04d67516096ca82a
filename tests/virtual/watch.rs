//! Watches: a stream of lines for each, which can be cut, late, doubled or expired.

use crate::api::Api;
use crate::store::{Change, Refusal};
use axum::body::Bytes;
use futures::Stream;
use futures::stream::unfold;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How watches behave now.
#[derive(Debug)]
pub struct Watching {
    /// How long after its write a change is told.
    pub late: Duration,
    /// Every event is told twice.
    pub doubled: bool,
    cut: watch::Sender<u64>,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            late: Duration::ZERO,
            doubled: false,
            cut: watch::Sender::new(0),
        }
    }
}

impl Watching {
    /// Ends every watch that is open.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

/// How often a silent watch says how far it is.
const BOOKMARK: Duration = Duration::from_secs(60);

struct Cursor {
    api: Api,
    plural: &'static str,
    version: u64,
    news: watch::Receiver<u64>,
    cut: watch::Receiver<u64>,
    ends: Instant,
    bookmark: Instant,
    over: bool,
}

pub fn stream(
    api: Api,
    plural: &'static str,
    version: u64,
    seconds: u64,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let (news, cut) = {
        let cut = api.watching.lock().unwrap().cut.subscribe();
        (api.store().news(), cut)
    };
    let now = Instant::now();
    let cursor = Cursor {
        api,
        plural,
        version,
        news,
        cut,
        ends: now + Duration::from_secs(seconds),
        bookmark: now + BOOKMARK,
        over: false,
    };
    unfold(cursor, |mut cursor| async move {
        let lines = cursor.next().await?;
        Some((Ok(lines), cursor))
    })
}

impl Cursor {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over || Instant::now() >= self.ends {
                return None;
            }
            self.news.borrow_and_update();
            let (found, expired, newest) = {
                let store = self.api.store();
                let found = store.after(self.plural, self.version).cloned();
                (found, self.version < store.oldest, store.version())
            };
            if expired {
                self.over = true;
                let gone = Refusal::new(410, "Expired", "too old resource version");
                return Some(line("ERROR", &gone.status()));
            }
            let (late, doubled) = {
                let watching = self.api.watching.lock().unwrap();
                (watching.late, watching.doubled)
            };
            let due = found.as_ref().map(|change| change.at + late);
            if let (Some(change), Some(due)) = (&found, due)
                && due <= Instant::now()
            {
                return Some(self.tell(change, doubled));
            }
            if found.is_none() && Instant::now() >= self.bookmark {
                self.bookmark = Instant::now() + BOOKMARK;
                // What is written while it waits to be told comes after this version.
                if late.is_zero() {
                    self.version = newest;
                }
                let mark = json!({"kind": "Bookmark", "apiVersion": "v1",
                    "metadata": {"resourceVersion": self.version.to_string()}});
                return Some(line("BOOKMARK", &mark));
            }
            let until = due.unwrap_or(self.bookmark).min(self.ends);
            tokio::select! {
                _ = self.news.changed() => {}
                _ = self.cut.changed() => self.over = true,
                () = sleep_until(until) => {}
            }
        }
    }

    fn tell(&mut self, change: &Change, doubled: bool) -> Bytes {
        self.version = change.version;
        let once = line(change.kind, &change.object);
        if doubled {
            [once.clone(), once].concat().into()
        } else {
            once
        }
    }
}

fn line(kind: &str, object: &serde_json::Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    text.into()
}
