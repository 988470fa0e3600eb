//! A file of any bytes.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic_and_every_error_is_one_line(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            "(server|app|store|[a-z]{1,5}):( |\n  )(port|title|url|[a-z]{1,5}): ?[^\r]{0,9}".prop_map(String::into_bytes),
        ],
    ) {
        if let Err(error) = load_given(&Given { file: Some(&bytes), ..Given::default() }) {
            let message = error.to_string();
            prop_assert!(message.chars().all(wording::is_safe), "{message:?}");
            prop_assert!(message.starts_with("my.yaml") && message.chars().count() < 600, "{message:?}");
        }
    }
}
