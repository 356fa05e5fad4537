//! What openraft runs on: tokio, with a source of randomness that a simulation can seed.
//!
//! A thread that called [`seed`] is simulated: elections draw from the seed, and what else would go
//! to a thread of its own is done in place, so that a run depends on nothing but its seed.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use openraft::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand10::rngs::{SmallRng, ThreadRng};
use rand10::{SeedableRng, TryRng};

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Everything random on this thread follows from the seed from now on; `None`: from the system.
pub(crate) fn seed(seed: Option<u64>) {
    SEEDED.set(seed.map(SmallRng::seed_from_u64));
}

/// Blocking work beside the runtime's own threads; in a simulation in place.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    if SEEDED.with_borrow(Option::is_some) {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
}

/// Randomness of elections.
pub(crate) enum Dice {
    System(ThreadRng),
    /// Of this thread's seed.
    Seeded,
}

impl Dice {
    fn of_thread() -> Self {
        match SEEDED.with_borrow(Option::is_some) {
            true => Self::Seeded,
            false => Self::System(rand10::rng()),
        }
    }

    fn with<T>(
        &mut self,
        system: impl FnOnce(&mut ThreadRng) -> T,
        seeded: impl FnOnce(&mut SmallRng) -> T,
    ) -> T {
        match self {
            Self::System(rng) => system(rng),
            Self::Seeded => SEEDED.with_borrow_mut(|rng| seeded(rng.as_mut().expect("seeded"))),
        }
    }
}

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.with(TryRng::try_next_u32, TryRng::try_next_u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.with(TryRng::try_next_u64, TryRng::try_next_u64)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Self::System(rng) => rng.try_fill_bytes(bytes),
            Self::Seeded => {
                SEEDED.with_borrow_mut(|rng| rng.as_mut().expect("seeded").try_fill_bytes(bytes))
            }
        }
    }
}

/// tokio, but for [`Dice`].
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Dice;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Dice {
        Dice::of_thread()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
