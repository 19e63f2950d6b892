//! Counts in a store's file, in two keys at once, and says each number when it is done.

use anyhow::{Context, Result};
use windlass_store::{LocalStore, Operation, Store};

#[tokio::main]
async fn main() -> Result<()> {
    let file = std::env::args().nth(1).context("name the file")?;
    let store = LocalStore::open(file.as_ref())?;
    let last: u64 = match store.get("/left").await? {
        Some(entry) => std::str::from_utf8(&entry.value)?.parse()?,
        None => 0,
    };
    for number in last + 1.. {
        let put =
            |key: &str| Operation::Put { key: key.into(), value: number.to_string().into(), lease: None };
        store.commit(Vec::new(), vec![put("/left"), put("/right")]).await?;
        println!("{number}");
    }
    Ok(())
}
