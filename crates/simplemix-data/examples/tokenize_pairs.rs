//! Reads preference files and tokenises them with a model folder's tokenizer.
//!
//! `cargo run -p simplemix-data --example tokenize_pairs -- MODEL_DIR FILE...`

use simplemix_data::{PairTokenizer, ReadOptions, TokenizeOptions, read_pairs_with_report};

#[expect(clippy::print_stdout, reason = "an example shows what it found")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: tokenize_pairs MODEL_DIR FILE...")?;
    let tokenizer = PairTokenizer::from_dir(model, TokenizeOptions::default())?;
    for file in arguments {
        let (pairs, report) = read_pairs_with_report(&file, &ReadOptions::default())?;
        println!("{report}");
        let set = tokenizer.encode_all(&pairs)?;
        println!(
            "  tokenised {}, cut {}, shifted {}, dropped {:?}",
            set.pairs.len(),
            set.cut,
            set.shifted,
            set.dropped
        );
        if let Some((_, pair)) = set.pairs.first() {
            println!("  first response: {:?}", tokenizer.decode(&pair.chosen)?);
        }
    }
    Ok(())
}
