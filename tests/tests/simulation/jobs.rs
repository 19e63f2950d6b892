//! Every item of a job has one result, in order, and the right one, though coordinators and workers die.

use std::time::Duration;

use futures::stream;
use tokio::time::sleep;
use tonic::Status;
use windlass_proto::v1::jobs_client::JobsClient;
use windlass_proto::v1::{
    GenerateRequest, GetJobRequest, ItemResult, JobItem, JobSpec, JobState, StreamResultsRequest,
    SubmitJobRequest, generate_request, item_result, job_item, submit_job_request::Part,
};

use crate::cluster::{Cluster, Way, for_seeds};
use crate::requests::{Answer, REQUESTS, UNDISTURBED, request};

const COORDINATORS: usize = 2;
const PAUSE: Duration = Duration::from_millis(200);

#[test]
fn every_item_has_one_result_and_the_right_one() {
    for_seeds("jobs", simulate);
}

/// One client submits a job and reads its results.
pub(crate) fn simulate(seed: u64) -> String {
    let answers = &*UNDISTURBED;
    let mut cluster = Cluster::new(seed, COORDINATORS, 3);
    cluster.faults.crash_coordinators = true;
    cluster.client("client", |way| async move {
        let items = 20 + way.dice.roll(120) as usize;
        let id = submit(&way, items).await;
        way.note(&format!("submitted {items} items as {id}"));
        let results = results(&way, &id).await;
        assert_eq!(results.len(), items);
        for (index, result) in results.into_iter().enumerate() {
            assert_eq!(result.index, index as u64);
            assert_eq!(answer(result), answers[index % REQUESTS], "of item {index}");
        }
        Ok(())
    });
    cluster.run()
}

/// One that may be crashed.
fn any(way: &Way) -> JobsClient<tonic::transport::Channel> {
    JobsClient::new(way.coordinator(way.dice.roll(COORDINATORS as u64) as usize))
}

/// Submits until a coordinator accepted it; the key makes it one job.
async fn submit(way: &Way, items: usize) -> String {
    let spec = JobSpec { idempotency_key: Some("once".into()), ..JobSpec::default() };
    let parts = [Part::Spec(spec)].into_iter().chain((0..items).map(|index| Part::Item(item(index))));
    let parts: Vec<_> = parts.map(|part| SubmitJobRequest { part: Some(part) }).collect();
    loop {
        match any(way).submit_job(stream::iter(parts.clone())).await {
            Ok(response) => return response.into_inner().job.expect("a job").id,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

fn item(index: usize) -> JobItem {
    let GenerateRequest { prompt, parameters, .. } = request(index % REQUESTS);
    let Some(generate_request::Prompt::TokenIds(ids)) = prompt else { panic!("requests have token ids") };
    JobItem { prompt: Some(job_item::Prompt::TokenIds(ids)), parameters, ..JobItem::default() }
}

/// Reads results, here and there, until the job has succeeded and all are read.
async fn results(way: &Way, id: &str) -> Vec<ItemResult> {
    let (mut results, mut resume_token) = (Vec::new(), String::new());
    loop {
        let read = read(way, id, &mut resume_token, &mut results).await;
        let job = any(way).get_job(GetJobRequest { id: id.to_owned() }).await;
        if let (Ok(()), Ok(job)) = (read, job) {
            let job = job.into_inner().job.expect("a job");
            if job.ended_ms.is_some() {
                assert_eq!(job.state(), JobState::Succeeded, "{}", job.error);
                return results;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Reads on behind the token, until the results end or something breaks.
async fn read(
    way: &Way,
    id: &str,
    resume_token: &mut String,
    results: &mut Vec<ItemResult>,
) -> Result<(), Status> {
    let request = StreamResultsRequest { id: id.to_owned(), resume_token: resume_token.clone() };
    let mut stream = any(way).stream_results(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        *resume_token = response.resume_token;
        way.note(&format!("result {resume_token}"));
        results.extend(response.result);
    }
    Ok(())
}

/// As a client that asks for itself would have it, but for the end, which jobs tell in part.
fn answer(result: ItemResult) -> Answer {
    let Some(item_result::Outcome::Answer(answer)) = result.outcome else { panic!("{result:?}") };
    let finish =
        windlass_proto::v1::Finish { reason: answer.finish_reason, usage: answer.usage, seed: answer.seed };
    let tokens = answer.token_ids.into_iter().zip(answer.depths).collect();
    Answer { tokens, text: answer.text, finish: Some(finish) }
}
