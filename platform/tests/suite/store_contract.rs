//! The contract of the document store: one list of tests, run for each engine. A new engine adds one line to
//! `contract!`, and one to `durable!`.
//!
//! The tests of an engine with a server are ignored: `make test-all` starts the servers and runs them.

mod concurrency;
mod documents;
mod durability;
mod methods;
mod model;
#[cfg(feature = "mongodb")]
mod mongodb;
#[cfg(feature = "postgres")]
mod postgres;
mod queries;

use std::sync::Arc;

use platform::error::StartError;
use platform::store::{self, Dao, DocumentStore, Entity, Fields};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

/// An engine and a folder of its own for one test.
struct TestStore {
    folder: TempDir,
    url: fn(&TempDir) -> String,
}

impl TestStore {
    fn memory() -> Self {
        Self::at(|_| "memory:".to_owned())
    }

    fn json_file() -> Self {
        Self::at(|folder| format!("file:{}", folder.path().join("store").display()))
    }

    #[cfg(feature = "sqlite")]
    fn sqlite() -> Self {
        Self::at(|folder| format!("sqlite:{}", folder.path().join("store.sqlite").display()))
    }

    /// A database of its own, named as the folder.
    #[cfg(feature = "mongodb")]
    fn mongodb() -> Self {
        Self::at(|folder| mongodb::url(&mongodb::server(), &mongodb::database(folder)))
    }

    /// A schema of its own, named as the folder.
    #[cfg(feature = "postgres")]
    fn postgres() -> Self {
        Self::at(|folder| postgres::url(&postgres::server(), &postgres::schema(folder)))
    }

    fn at(url: fn(&TempDir) -> String) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), url }
    }

    async fn open(&self) -> Arc<dyn DocumentStore> {
        #[cfg(feature = "postgres")]
        postgres::create(&(self.url)(&self.folder)).await;
        open(&(self.url)(&self.folder), 1).await.unwrap()
    }

    /// Deletes what the test has left on a server. A test that fails leaves it.
    #[cfg_attr(
        not(any(feature = "mongodb", feature = "postgres")),
        expect(clippy::unused_async, reason = "the engines of this build have no server")
    )]
    async fn remove(&self) {
        #[cfg(feature = "mongodb")]
        mongodb::remove(&(self.url)(&self.folder)).await;
        #[cfg(feature = "postgres")]
        postgres::remove(&(self.url)(&self.folder)).await;
    }
}

async fn open(url: &str, processes: u64) -> Result<Arc<dyn DocumentStore>, StartError> {
    let sqlite = json!({"connections": 4, "queue": 1024, "group": 256});
    let servers = json!({"connections": 8});
    let settings =
        json!({"url": url, "timeout": "10s", "sqlite": sqlite, "mongodb": servers, "postgres": servers});
    store::open(&serde_json::from_value(settings).unwrap(), processes).await
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Person {
    name: String,
    age: i64,
}

impl Entity for Person {
    const COLLECTION: &'static str = "people";
    const INDEXES: &'static [&'static str] = &["name"];
}

fn person(name: &str, age: i64) -> Person {
    Person { name: name.to_owned(), age }
}

/// Any object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Anything(Fields);

impl Entity for Anything {
    const COLLECTION: &'static str = "anything";
    const INDEXES: &'static [&'static str] = &["a"];
}

fn anything(value: serde_json::Value) -> Anything {
    serde_json::from_value(value).unwrap()
}

fn people(store: &Arc<dyn DocumentStore>) -> Dao<Person> {
    Dao::new(Arc::clone(store))
}

fn things(store: &Arc<dyn DocumentStore>) -> Dao<Anything> {
    Dao::new(Arc::clone(store))
}

/// The tests of one engine in a module. The attribute is `ignore` for an engine that needs a server.
macro_rules! engine {
    ($module:ident, $engine:ident, $attribute:meta: $($group:ident { $($case:ident)* })*) => {
        mod $module {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[$attribute]
                async fn $case() {
                    let test_store = super::TestStore::$engine();
                    super::$group::$case(test_store.open().await).await;
                    test_store.remove().await;
                }
            )*)*
        }
    };
}

macro_rules! contract {
    ($($cases:tt)*) => {
        engine!(memory, memory, cfg(all()): $($cases)* concurrency { several_documents_of_one_insert_are_seen_together });
        engine!(json_file, json_file, cfg(all()): $($cases)*);
        #[cfg(feature = "sqlite")]
        engine!(sqlite, sqlite, cfg(all()): $($cases)* concurrency { several_documents_of_one_insert_are_seen_together });
        #[cfg(feature = "mongodb")]
        engine!(on_mongodb, mongodb, ignore = "needs MongoDB: make test-all":
            $($cases)* concurrency { several_documents_of_one_insert_are_seen_together }
        );
        #[cfg(feature = "postgres")]
        engine!(on_postgres, postgres, ignore = "needs PostgreSQL: make test-all":
            $($cases)* concurrency { several_documents_of_one_insert_are_seen_together }
        );
    };
}

contract! {
    documents {
        a_created_document_can_be_read_back
        a_document_comes_back_exactly_as_it_was_sent
        a_random_float_comes_back_to_the_last_bit
        hostile_ids_do_not_collide
        an_id_that_is_empty_or_too_long_is_refused
        a_document_nested_too_deeply_is_refused
        a_document_of_the_deepest_nesting_comes_back
        a_key_that_serde_json_would_interpret_is_refused
        keys_that_other_formats_interpret_are_kept
        nul_in_a_document_is_refused_with_its_pointer
        nul_in_an_id_is_refused_and_names_no_document
        collections_are_separate
        a_document_that_is_not_the_entity_is_an_internal_error
        a_ping_succeeds
    }
    methods {
        get_first_returns_the_oldest
        get_all_is_in_the_order_of_the_ids
        get_all_sorted_is_in_the_order_asked_for
        insert_with_id_refuses_an_id_that_exists
        insert_many_stores_all
        insert_many_stores_none_when_one_is_refused
        upsert_creates_then_replaces
        update_first_changes_the_fields_named_and_no_other
        update_first_of_a_path_through_a_value_changes_nothing
        delete_first_deletes_one
        delete_all_deletes_what_matches
        delete_with_ids_counts_the_existing_documents
        replace_changes_an_existing_document_and_creates_none
        a_page_comes_with_the_total_count
        a_walk_in_chunks_sees_each_document_once
        a_walk_in_chunks_continues_while_others_write
        a_chunk_says_whether_there_is_a_next_one
        a_stream_ends_after_the_last_document
        count_and_exists_agree
        an_empty_collection_accepts_every_method
    }
    queries {
        a_sort_over_mixed_types_is_the_same_everywhere
        a_filter_over_mixed_types_is_the_same_everywhere
        numbers_are_compared_exactly
        an_integer_above_the_range_of_64_bits_with_sign_counts_as_the_nearest_float
        null_missing_and_present_are_distinct
        texts_are_compared_bytewise
        an_operand_with_nul_is_compared_as_any_other
        filters_can_be_combined
        a_page_beyond_the_end_is_empty
        a_path_may_have_any_letters_that_are_allowed
        a_text_that_looks_like_a_query_is_a_text
        a_query_beyond_a_limit_is_refused
        the_largest_allowed_filter_works
    }
    concurrency {
        every_write_raises_the_version
        a_write_that_expects_another_version_is_refused
        compare_and_set_loses_no_write
        update_first_hands_out_each_document_once
        one_of_many_inserts_of_an_id_wins
        concurrent_upserts_of_an_id_make_one_document
        modify_loses_no_change_and_refuses_none
        patches_of_many_writers_are_all_applied
    }
    model {
        random_operations_give_the_same_results_as_memory
    }
}

macro_rules! durable_engine {
    ($engine:ident, $attribute:meta: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$attribute]
            async fn $case() {
                super::super::durability::$case(super::super::TestStore::$engine()).await;
            }
        )*
    };
}

macro_rules! durable {
    ($($case:ident)*) => {
        mod durable {
            mod json_file {
                durable_engine!(json_file, cfg(all()): $($case)* hostile_ids_stay_inside_the_folder);
            }
            #[cfg(feature = "sqlite")]
            mod sqlite {
                durable_engine!(sqlite, cfg(all()): $($case)* hostile_ids_stay_inside_the_folder);
            }
            #[cfg(feature = "mongodb")]
            mod on_mongodb {
                durable_engine!(mongodb, ignore = "needs MongoDB: make test-all": $($case)*);
            }
            #[cfg(feature = "postgres")]
            mod on_postgres {
                durable_engine!(postgres, ignore = "needs PostgreSQL: make test-all": $($case)*);
            }
        }
    };
}

durable! {
    stored_documents_survive_a_restart
    two_handles_see_the_writes_of_each_other
    compare_and_set_over_two_handles_loses_no_write
}

#[tokio::test]
async fn memory_for_several_processes_is_refused_with_the_reason() {
    let error = open("memory:", 2).await.err().unwrap();
    assert_eq!(error.exit_code, 2);
    assert!(error.to_string().contains("each would have data of its own"), "{error}");
    open("memory:", 1).await.unwrap();
}
