use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use futures::stream::{self, StreamExt};

use super::*;
use crate::{Principal, Role};

fn cx(user: &str, namespace: &str) -> RequestContext {
    RequestContext {
        namespace: namespace.into(),
        principal: Principal::user(user, Role::Reader),
    }
}

/// `count` instances that are made as they are taken, and how many were.
fn counted(count: usize) -> (InstanceStream, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let stream = stream::iter(0..count).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Instance::new("C"))
    });
    (stream.boxed(), made)
}

fn small() -> Enumerations<u8> {
    Enumerations::new(EnumerationLimits {
        open: 3,
        by_caller: 2,
        page: 4,
        ..EnumerationLimits::default()
    })
}

const MINUTE: Duration = Duration::from_secs(60);

fn status<T>(result: Result<T, CimError>) -> Option<Status> {
    result.err().map(|error| error.status)
}

#[test]
fn pages_follow_one_another_to_the_end() {
    let all = small();
    let cx = cx("ada", "root/x");
    let (stream, made) = counted(7);
    block_on(async {
        let page = all.open(&cx, stream, 1, MINUTE, 0).await.unwrap();
        assert_eq!((page.instances.len(), made.load(Ordering::SeqCst)), (0, 0));
        let context = page.context.unwrap();
        let mut sizes = Vec::new();
        for most in [2, 0, 100, 1] {
            let page = all
                .pull(&cx, &context, |kind| *kind == 1, most)
                .await
                .unwrap();
            sizes.push((
                page.instances.len(),
                page.context.is_some(),
                made.load(Ordering::SeqCst),
            ));
        }
        // A page is no larger than the limit; one instance is read ahead.
        assert_eq!(
            sizes,
            [(2, true, 3), (0, true, 3), (4, true, 7), (1, false, 7)]
        );
        assert_eq!(all.count(), 0);
        let after = all.pull(&cx, &context, |_| true, 1).await;
        assert_eq!(status(after), Some(Status::InvalidEnumerationContext));
        let (stream, _) = counted(2);
        let page = all.open(&cx, stream, 1, MINUTE, 2).await.unwrap();
        assert_eq!((page.instances.len(), page.context), (2, None));
    });
}

#[test]
fn a_page_of_large_instances_is_shorter() {
    let all = Enumerations::new(EnumerationLimits {
        page_bytes: 1000,
        ..EnumerationLimits::default()
    });
    let large = stream::iter(0..9).map(|number| {
        let mut inner = Instance::new("C");
        inner.set("Texts", vec!["x".repeat(300), "y".repeat(100)]);
        let mut instance = Instance::new("C");
        instance.set("Number", number as u32).set("Inner", inner);
        Ok(instance)
    });
    let cx = cx("ada", "root/x");
    block_on(async {
        let page = all.open(&cx, large.boxed(), 1, MINUTE, 2).await.unwrap();
        let mut sizes = vec![page.instances.len()];
        let mut next = page.context;
        while let Some(context) = next {
            let page = all.pull(&cx, &context, |_| true, 100).await.unwrap();
            sizes.push(page.instances.len());
            next = page.context;
        }
        assert_eq!(sizes, [2, 3, 3, 1]);
    });
}

#[test]
fn what_does_not_fit_is_the_next_pages_first() {
    let all = small();
    let cx = cx("ada", "root/x");
    let (stream, made) = counted(3);
    block_on(async {
        let mut room = 2;
        let fits = |_: &Instance| {
            room -= 1;
            room >= 0
        };
        let page = all.open_fitting(&cx, stream, 1, MINUTE, 4, fits).await;
        let page = page.unwrap();
        assert_eq!((page.instances.len(), made.load(Ordering::SeqCst)), (2, 3));
        let context = page.context.unwrap();
        // One that never fits stays, and the page is empty.
        let none = |_: &Instance| false;
        let page = all.pull_fitting(&cx, &context, |_| true, 4, none).await;
        let page = page.unwrap();
        assert_eq!((page.instances.len(), page.context.is_some()), (0, true));
        let page = all.pull(&cx, &context, |_| true, 4).await.unwrap();
        assert_eq!((page.instances.len(), page.context), (1, None));
    });
}

#[test]
fn a_context_is_its_openers_alone() {
    let all = small();
    let ada = cx("ada", "root/x");
    block_on(async {
        let page = all.open(&ada, counted(9).0, 1, MINUTE, 1).await.unwrap();
        let context = page.context.unwrap();
        for (other, kind) in [
            (cx("bob", "root/x"), 1),
            (cx("ada", "root/y"), 1),
            (cx("ada", "root/x"), 2),
        ] {
            let pulled = all.pull(&other, &context, |k| *k == kind, 1).await;
            assert_eq!(status(pulled), Some(Status::InvalidEnumerationContext));
        }
        assert!(all.close(&cx("bob", "root/x"), &context).is_err());
        all.pull(&cx("ada", r"ROOT\X"), &context, |_| true, 1)
            .await
            .unwrap();
        all.close(&ada, &context).unwrap();
        assert_eq!(
            status(all.close(&ada, &context)),
            Some(Status::InvalidEnumerationContext)
        );
    });
}

#[test]
fn there_are_no_more_than_allowed_and_unused_ones_go() {
    let all = small();
    let open = |user: &str| {
        let cx = cx(user, "root/x");
        status(block_on(all.open(&cx, counted(9).0, 1, MINUTE, 1)))
    };
    let too_many = Some(Status::ServerLimitsExceeded);
    assert_eq!(
        [open("ada"), open("ada"), open("ada")],
        [None, None, too_many]
    );
    assert_eq!([open("bob"), open("bob")], [None, too_many]);
    all.expire(Instant::now() + Duration::from_secs(59));
    assert_eq!(all.count(), 3);
    all.expire(Instant::now() + MINUTE);
    assert_eq!(all.count(), 0);
    assert_eq!(open("ada"), None);
    let minute = all.timeout(None).unwrap();
    assert_eq!(
        (minute, all.timeout(Some(900)).unwrap()),
        (MINUTE, MINUTE * 15)
    );
    for seconds in [0, 901, u64::MAX] {
        let refused = status(all.timeout(Some(seconds)));
        assert_eq!(refused, Some(Status::InvalidOperationTimeout));
    }
}

#[test]
fn an_error_ends_it_and_closing_ends_a_page_under_way() {
    let all = small();
    let cx = cx("ada", "root/x");
    block_on(async {
        let broken = stream::iter([
            Ok(Instance::new("C")),
            Ok(Instance::new("C")),
            Err(CimError::failed("x")),
        ]);
        let page = all.open(&cx, broken.boxed(), 1, MINUTE, 1).await.unwrap();
        let pulled = all.pull(&cx, &page.context.unwrap(), |_| true, 5).await;
        assert_eq!((status(pulled), all.count()), (Some(Status::Failed), 0));

        let (sender, receiver) = futures::channel::mpsc::unbounded();
        sender.unbounded_send(Ok(Instance::new("C"))).unwrap();
        let page = all.open(&cx, receiver.boxed(), 1, MINUTE, 0).await.unwrap();
        let context = page.context.unwrap();
        let reading = all.pull(&cx, &context, |_| true, 5);
        futures::pin_mut!(reading);
        assert!(futures::poll!(&mut reading).is_pending());
        let second = all.pull(&cx, &context, |_| true, 5).await;
        assert_eq!(status(second), Some(Status::Failed));
        all.expire(Instant::now() + MINUTE * 2);
        all.close(&cx, &context).unwrap();
        drop(sender);
        assert_eq!(status(reading.await), Some(Status::PullHasBeenAbandoned));
        // A page that nobody waits for any longer ends its enumeration.
        let page = all
            .open(&cx, stream::pending().boxed(), 1, MINUTE, 0)
            .await
            .unwrap();
        {
            let context = page.context.unwrap();
            let reading = all.pull(&cx, &context, |_| true, 5);
            futures::pin_mut!(reading);
            assert!(futures::poll!(&mut reading).is_pending());
        }
        assert_eq!(all.count(), 0);
    });
}
