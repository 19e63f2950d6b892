//! Items can be read from an object store.

use std::fs;

use url::Url;
use windlass_jobs::JobsError;
use windlass_proto::v1::JobSpec;

use crate::world::{World, ended, for_seeds, results, submit_items};

/// Writes files, and submits the folder or one of them.
async fn submit_files(files: &[(&str, String)], named: &str) -> Result<(World, String), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let mut world = World::new(0);
    let url = Url::from_directory_path(folder.path()).unwrap();
    world.config.uris = vec![url.clone()];
    world.config.max_item_bytes = 1000;
    let input_uri = Some(url.join(named).unwrap().to_string());
    let spec = JobSpec { input_uri, ..JobSpec::default() };
    let job = submit_items(&world.jobs(), spec, Vec::new()).await.map_err(|error| error.to_string());
    match job {
        Ok(job) => Ok((world, job.id)),
        Err(error) => {
            assert_eq!(world.keys("").await, [""; 0], "something was kept");
            assert_eq!(world.objects().await, [""; 0], "something was kept");
            Err(error)
        }
    }
}

fn lines(range: std::ops::Range<u64>) -> String {
    range.map(|index| format!("{{\"id\": \"item-{index}\", \"prompt\": \"text {index}\"}}\n")).collect()
}

#[test]
fn objects_of_a_folder_are_read_in_order_of_names() {
    for_seeds(1, |_| async {
        let files = [
            ("b.jsonl", lines(70..150)),
            // Without an end of line, and with an empty one.
            ("a.jsonl", format!("\n{}", lines(0..70).trim_end())),
            ("c.txt", "not this one".to_owned()),
        ];
        let (world, id) = submit_files(&files, "").await.unwrap();
        let jobs = world.jobs();
        let _process = world.process(0);
        assert_eq!(ended(&jobs, &id).await.items, 150);
        results(&jobs, &id)
            .await
            .iter()
            .zip(0..)
            .for_each(|(result, index)| crate::answers::check(result, index));
        let (_, _) = submit_files(&files, "b.jsonl").await.unwrap();
    });
}

#[test]
fn what_is_wrong_is_named_with_object_line_and_field() {
    for_seeds(1, |_| async {
        let bad = format!("{}{{\"prompt\": 3}}\n{}", lines(0..80), lines(80..90));
        let error = submit_files(&[("a.jsonl", lines(0..5)), ("b.jsonl", bad)], "").await.err().unwrap();
        let expected = "b.jsonl line 81: prompt: expected a string or a list of token ids";
        assert!(error.starts_with("input_uri: ") && error.contains(expected), "{error}");
        let long = format!("{}{{\"prompt\": \"{}\"}}\n", lines(0..2), "x".repeat(100_000));
        let error = submit_files(&[("a.jsonl", long)], "a.jsonl").await.err().unwrap();
        assert!(error.contains("a.jsonl line 3: it is longer than 1000 bytes"), "{error}");
        let error = submit_files(&[("a.txt", String::new())], "").await.err().unwrap();
        assert!(error.contains("no folder of objects that end with .jsonl"), "{error}");
        let error = submit_files(&[("a.jsonl", String::new())], "a.jsonl").await.err().unwrap();
        assert_eq!(error, "item: there is none: send at least one");
    });
}

#[test]
fn links_out_of_the_folder_are_refused() {
    for_seeds(1, |seed| async move {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret.jsonl"), lines(0..1)).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("away")).unwrap();
        let mut world = World::new(seed);
        let url = Url::from_directory_path(folder.path()).unwrap();
        world.config.uris = vec![url.clone()];
        let jobs = world.jobs();
        let at = |name: &str| Some(url.join(name).unwrap().to_string());
        let specs = [
            JobSpec { input_uri: at(""), ..JobSpec::default() },
            JobSpec { input_uri: at("away/secret.jsonl"), ..JobSpec::default() },
            JobSpec { output_uri: at("away/out.jsonl"), ..JobSpec::default() },
        ];
        for spec in specs {
            let items = if spec.input_uri.is_some() { Vec::new() } else { crate::answers::items(1) };
            let refused = submit_items(&jobs, spec, items).await.unwrap_err();
            assert!(matches!(refused, JobsError::Invalid { .. }), "{refused}");
            assert!(
                refused.to_string().contains("which is not allowed here: put the file itself"),
                "{refused}"
            );
        }
        assert_eq!(world.keys("").await, [""; 0]);
    });
}
