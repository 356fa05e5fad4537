//! Work that may panic without ending the node: one call of one client. Everything else that
//! panics is a part without which the node is half dead (see [`super::abort_on_panic`]).

use std::cell::Cell;
use std::task::{Context, Poll};

use tower::{Layer, Service};

tokio::task_local! {
    static IN_CALL: ();
}

thread_local! {
    static BLOCKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic here ends only the call or the session that it is part of.
pub fn is_contained() -> bool {
    dtm_actors::in_session() || IN_CALL.try_with(|()| ()).is_ok() || BLOCKING.get()
}

/// A task of one call.
pub async fn contained<F: Future>(work: F) -> F::Output {
    IN_CALL.scope((), work).await
}

/// A blocking part of one call.
pub fn contained_blocking<T>(work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            BLOCKING.set(false);
        }
    }
    BLOCKING.set(true);
    let _reset = Reset;
    work()
}

/// Marks every call of a door.
#[derive(Clone, Copy)]
pub struct ContainCalls;

/// A door whose calls are marked.
#[derive(Clone)]
pub struct Contained<S>(S);

impl<S> Layer<S> for ContainCalls {
    type Service = Contained<S>;

    fn layer(&self, inner: S) -> Contained<S> {
        Contained(inner)
    }
}

impl<S, R> Service<R> for Contained<S>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = tokio::task::futures::TaskLocalFuture<(), S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        IN_CALL.scope((), self.0.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_marked_work_is_contained() {
        assert!(!is_contained());
        assert!(contained(async { is_contained() }).await);
        assert!(contained_blocking(is_contained));
        let caught =
            std::panic::catch_unwind(|| contained_blocking::<u8>(|| panic!("as a call may")));
        assert!(caught.is_err() && !is_contained());
        let mut door = ContainCalls.layer(tower::service_fn(|(): ()| async {
            Ok::<_, std::convert::Infallible>(is_contained())
        }));
        assert!(door.call(()).await.expect("answers"));
        assert!(!tokio::spawn(async { is_contained() }).await.expect("ends"));
    }
}
