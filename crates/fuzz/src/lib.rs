//! Fuzz targets as tests.
//!
//! [`target!`] makes a test of a function of bytes. In `cargo test` the function sees every file of its corpus,
//! some thousands of changed copies of those, and random bytes. Built by `cargo xtask fuzz`, the same test is a
//! libFuzzer target that looks for new paths through the code. A panic is a failed test in both.

use std::path::Path;

#[doc(hidden)]
pub use bolero;

mod changes;

/// Changed copies of corpus files that one test tries.
#[doc(hidden)]
pub const COPIES: usize = 4096;
/// Inputs of random bytes that one test tries.
#[doc(hidden)]
pub const RANDOM_INPUTS: usize = 256;
/// Longest input of random bytes.
#[doc(hidden)]
pub const RANDOM_BYTES_MAX: usize = 1024;

/// A test of this name that tries a function of bytes; its corpus is in `__fuzz__/NAME/corpus` beside the file.
///
/// ```ignore
/// arcadia_fuzz::target!(arm_id, |data: &[u8]| { let _ = ArmId::parse(&String::from_utf8_lossy(data)); });
/// ```
///
/// A check that takes long, such as one of whole requests, says how many changed copies a test tries:
/// `target!(requests, 256 copies, |data: &[u8]| ...)`.
#[macro_export]
macro_rules! target {
    ($name:ident, $check:expr) => {
        $crate::target!($name, $crate::COPIES, $crate::RANDOM_INPUTS, $check);
    };
    ($name:ident, $copies:literal copies, $check:expr) => {
        $crate::target!($name, $copies, $copies / 8, $check);
    };
    ($name:ident, $copies:expr, $random:expr, $check:expr) => {
        #[test]
        fn $name() {
            let check = $check;
            let place = (env!("CARGO_MANIFEST_DIR"), file!(), stringify!($name));
            $crate::near_the_corpus(place, $copies, check);
            $crate::bolero::check!(name = stringify!($name))
                .with_iterations($random)
                .with_max_len($crate::RANDOM_BYTES_MAX)
                .for_each(check);
        }
    };
}

/// Tries changed copies of the corpus, the same ones every time. Does nothing where a fuzzer does that better.
#[doc(hidden)]
pub fn near_the_corpus(place: (&str, &str, &str), copies: usize, check: impl Fn(&[u8])) {
    if cfg!(fuzzing) {
        return;
    }
    let (crate_directory, file, name) = place;
    // Compilers name files from the workspace's folder, which is above the crate's.
    let source =
        Path::new(crate_directory).ancestors().map(|above| above.join(file)).find(|path| path.exists());
    let beside = source.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    let corpus = beside.join("__fuzz__").join(name).join("corpus");
    let seeds = seeds(&corpus);
    assert!(!seeds.is_empty(), "{} has no files; a target begins with examples", corpus.display());
    // The files themselves first: what failed once is among them.
    for copy in seeds.iter().cloned().chain(changes::of(&seeds)).take(copies.max(seeds.len())) {
        check(&copy);
    }
}

fn seeds(corpus: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
