//! The contract of the document store: one list of tests, run for each engine. A new engine adds one line to
//! `contract!`, and one to `durable!`.
//!
//! The tests of an engine with a server are ignored: `make test-all` starts the servers and runs them.

mod batches;
mod concurrency;
mod copies;
mod documents;
mod durability;
mod guarded;
mod methods;
mod migrating;
mod model;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(any(feature = "mongodb", feature = "postgres"))]
mod outages;
mod pages;
#[cfg(feature = "postgres")]
pub mod postgres;
mod queries;
mod throttles;
mod tokens;
mod unique;
mod unique_batches;

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
    let sqlite = json!({"connections": 4, "queue": 1024, "group": 256, "wal_limit": "16MiB"});
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

/// The version of a document that is there.
async fn version<T: Entity>(dao: &Dao<T>, id: &str) -> u64 {
    dao.get(id).await.unwrap().unwrap().version
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
        a_count_stops_at_its_bound
        documents_are_counted_by_a_value
        some_fields_are_read
        an_empty_collection_accepts_every_method
    }
    queries {
        a_sort_over_mixed_types_is_the_same_everywhere
        a_filter_over_mixed_types_is_the_same_everywhere
        an_element_of_an_array_is_found
        a_text_is_found_in_another
        documents_are_found_by_the_type_of_a_value
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
    pages {
        pages_of_a_sort_are_the_whole_list
        a_page_begins_in_the_right_place_whatever_is_written_meanwhile
        values_too_long_for_a_cursor_are_looked_up
        a_page_without_a_next_one_has_no_cursor
    }
    concurrency {
        every_write_raises_the_version
        a_version_is_never_used_twice_for_one_id
        a_write_that_expects_another_version_is_refused
        compare_and_set_loses_no_write
        update_first_hands_out_each_document_once
        one_of_many_inserts_of_an_id_wins
        concurrent_upserts_of_an_id_make_one_document
        modify_loses_no_change_and_refuses_none
        patches_of_many_writers_are_all_applied
    }
    unique {
        a_value_of_another_document_is_refused_by_every_write
        an_id_that_exists_goes_before_a_value_that_exists
        values_that_no_filter_finds_never_clash
        equality_is_that_of_a_filter
        texts_of_any_length_are_compared_to_their_end
        a_value_is_free_again_when_its_document_has_lost_it
        an_insert_of_many_that_clashes_stores_none
        one_of_many_writers_of_a_value_wins
        concurrent_inserts_of_many_store_all_or_none
        an_upsert_by_a_unique_value_never_clashes_with_it
        a_path_is_unique_only_when_the_stored_documents_allow_it
    }
    guarded {
        an_older_token_is_refused_by_every_write_and_changes_nothing
        an_equal_or_newer_token_writes_and_is_kept
        an_unguarded_write_keeps_the_token
        a_guarded_delete_all_leaves_what_a_newer_token_has_written
        a_deleted_document_takes_its_token_with_it
        of_concurrent_writers_the_token_never_falls
        without_a_guard_an_older_writer_overwrites_a_newer_one
        a_guarded_write_of_a_taken_value_is_refused_and_an_older_token_goes_first
        some_fields_come_with_the_token
    }
    model {
        random_operations_give_the_same_results_as_memory
    }
    throttles {
        of_attempts_at_once_exactly_the_burst_is_let_in
        attempts_come_back_with_time_and_at_once_when_they_are_forgotten
        an_attempt_that_is_refused_uses_up_no_other_limit
        the_owners_device_gets_in_while_others_use_up_the_account
        a_sweep_deletes_what_limits_nothing_and_leaves_the_rest
    }
    tokens {
        a_token_is_found_until_it_ends
        the_use_of_a_token_is_noted_now_and_then
        a_revoked_token_is_not_found_and_others_revoke_none
        the_store_has_nothing_that_opens_anything
    }
}

/// The tests of batches. On MongoDB, one test: it depends on the server which of the two it is.
macro_rules! batches {
    ($($group:ident { $($case:ident)* })*) => {
        mod with_batches {
            use super::{TestStore, batches, model, unique_batches};

            engine!(memory, memory, cfg(all()): $($group { $($case)* })* batches { readers_see_both_documents_of_a_batch_or_none });
            engine!(json_file, json_file, cfg(all()): $($group { $($case)* })* model { random_batches_give_the_same_results_as_memory });
            #[cfg(feature = "sqlite")]
            engine!(sqlite, sqlite, cfg(all()):
                $($group { $($case)* })* batches { readers_see_both_documents_of_a_batch_or_none }
                model { random_batches_give_the_same_results_as_memory }
            );
            #[cfg(feature = "postgres")]
            engine!(on_postgres, postgres, ignore = "needs PostgreSQL: make test-all":
                $($group { $($case)* })* batches { readers_see_both_documents_of_a_batch_or_none }
                model { random_batches_give_the_same_results_as_memory }
            );

            #[cfg(feature = "mongodb")]
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs MongoDB: make test-all"]
            async fn on_mongodb_batches_work_in_a_replica_set_and_are_refused_by_a_stand_alone_server() {
                let test_store = TestStore::mongodb();
                let store = test_store.open().await;
                if let Err(refusal) = store.check_batches().await {
                    let url = (test_store.url)(&test_store.folder);
                    batches::assert_refused(&store, &url, refusal).await;
                    return test_store.remove().await;
                }
                test_store.remove().await;
                $($(
                    let test_store = TestStore::mongodb();
                    $group::$case(test_store.open().await).await;
                    test_store.remove().await;
                )*)*
                let test_store = TestStore::mongodb();
                batches::readers_see_both_documents_of_a_batch_or_none(test_store.open().await).await;
                model::random_batches_give_the_same_results_as_memory(test_store.open().await).await;
                test_store.remove().await;
            }
        }
    };
}

batches! {
    batches {
        a_batch_writes_to_several_collections
        a_refused_step_is_named_and_undoes_all_others
        the_steps_of_one_document_happen_in_order
        a_batch_has_limits_and_a_store
        a_guarded_step_leaves_its_token
        a_child_is_stored_only_while_its_parent_is_there
        batches_in_opposite_order_all_succeed
        one_of_many_batches_with_the_same_version_wins
    }
    unique_batches {
        a_step_with_the_value_of_a_stored_document_is_refused
        two_steps_with_the_same_value_are_refused
        a_value_that_an_earlier_step_has_freed_can_be_taken
        of_several_reasons_to_refuse_a_step_the_value_is_the_last
        one_of_many_batches_with_the_same_values_wins
    }
}

macro_rules! durable_engine {
    ($group:ident, $engine:ident, $attribute:meta: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[$attribute]
            async fn $case() {
                super::super::$group::$case(super::super::TestStore::$engine()).await;
            }
        )*
    };
}

macro_rules! durable {
    ($($case:ident)*) => {
        mod durable {
            mod json_file {
                durable_engine!(durability, json_file, cfg(all()):
                    $($case)* hostile_ids_stay_inside_the_folder batches_over_two_handles_lose_no_write);
            }
            #[cfg(feature = "sqlite")]
            mod sqlite {
                durable_engine!(durability, sqlite, cfg(all()): $($case)*
                    hostile_ids_stay_inside_the_folder
                    a_path_that_is_no_longer_declared_stays_unique
                    batches_over_two_handles_lose_no_write
                );
            }
            #[cfg(feature = "mongodb")]
            mod on_mongodb {
                durable_engine!(durability, mongodb, ignore = "needs MongoDB: make test-all": $($case)*
                    a_path_that_is_no_longer_declared_stays_unique
                );
            }
            #[cfg(feature = "postgres")]
            mod on_postgres {
                durable_engine!(durability, postgres, ignore = "needs PostgreSQL: make test-all": $($case)*
                    a_path_that_is_no_longer_declared_stays_unique
                    batches_over_two_handles_lose_no_write
                );
            }
        }
    };
}

durable! {
    stored_documents_survive_a_restart
    two_handles_see_the_writes_of_each_other
    compare_and_set_over_two_handles_loses_no_write
    a_value_is_unique_over_two_handles
    a_start_over_documents_that_clash_fails_and_names_two
}

macro_rules! copied {
    ($($case:ident)*) => {
        mod copied {
            mod json_file {
                durable_engine!(copies, json_file, cfg(all()): $($case)*);
            }
            #[cfg(feature = "sqlite")]
            mod sqlite {
                durable_engine!(copies, sqlite, cfg(all()): $($case)*);
            }
            #[cfg(feature = "mongodb")]
            mod on_mongodb {
                durable_engine!(copies, mongodb, ignore = "needs MongoDB: make test-all": $($case)*);
            }
            #[cfg(feature = "postgres")]
            mod on_postgres {
                durable_engine!(copies, postgres, ignore = "needs PostgreSQL: make test-all": $($case)*);
            }
        }
    };
}

macro_rules! migrated {
    ($($case:ident)*) => {
        mod migrated {
            mod memory {
                durable_engine!(migrating, memory, cfg(all()): $($case)*);
            }
            mod json_file {
                durable_engine!(migrating, json_file, cfg(all()): $($case)* a_run_that_was_killed_goes_on_when_its_lease_has_ended);
            }
            #[cfg(feature = "sqlite")]
            mod sqlite {
                durable_engine!(migrating, sqlite, cfg(all()): $($case)* a_run_that_was_killed_goes_on_when_its_lease_has_ended);
            }
            #[cfg(feature = "mongodb")]
            mod on_mongodb {
                durable_engine!(migrating, mongodb, ignore = "needs MongoDB: make test-all":
                    $($case)* a_run_that_was_killed_goes_on_when_its_lease_has_ended
                );
            }
            #[cfg(feature = "postgres")]
            mod on_postgres {
                durable_engine!(migrating, postgres, ignore = "needs PostgreSQL: make test-all":
                    $($case)* a_run_that_was_killed_goes_on_when_its_lease_has_ended
                );
            }
        }
    };
}

migrated! {
    a_step_runs_once_on_each_document_and_is_recorded
    a_document_that_a_step_refuses_is_named_and_the_rest_can_be_done_later
    a_migration_loses_no_write_of_others
    of_two_processes_at_once_each_document_is_changed_once
}

copied! {
    a_copy_there_and_back_is_equal
    a_restored_document_replaces_the_one_of_its_id
    a_target_with_other_documents_is_refused_and_can_be_overwritten
    a_copy_that_was_stopped_goes_on_where_it_was
    an_overwrite_takes_unique_values_back_from_the_documents_that_have_them
}

#[tokio::test]
async fn memory_for_several_processes_is_refused_with_the_reason() {
    let error = open("memory:", 2).await.err().unwrap();
    assert_eq!(error.exit_code, 2);
    assert!(error.to_string().contains("each would have data of its own"), "{error}");
    open("memory:", 1).await.unwrap();
}
