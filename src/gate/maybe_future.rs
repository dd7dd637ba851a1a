//! A value that is ready, or a future of it.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll},
};

/// A value that is ready, or a boxed future of it.
///
/// A policy in memory decides without a future, so that its requests cost no allocation. A policy that asks a store across
/// the network returns a future. `.await` accepts both.
///
/// ```
/// use tollgate::MaybeFuture;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(MaybeFuture::Ready(7).await, 7);
/// assert_eq!(MaybeFuture::future(async { 7 }).await, 7);
/// # });
/// ```
pub enum MaybeFuture<T> {
    /// The value.
    Ready(T),
    /// A future of the value.
    Future(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> MaybeFuture<T> {
    /// Boxes a future.
    ///
    /// ```
    /// use tollgate::{MaybeFuture, Refusal};
    ///
    /// fn decide(allowed: impl Future<Output = bool> + Send + 'static, refusal: Refusal) -> MaybeFuture<Result<(), Refusal>> {
    ///     MaybeFuture::future(async move { if allowed.await { Ok(()) } else { Err(refusal) } })
    /// }
    /// ```
    #[must_use]
    pub fn future(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self::Future(Box::pin(future))
    }
}

impl<T> IntoFuture for MaybeFuture<T> {
    type Output = T;
    type IntoFuture = IntoValue<T>;

    fn into_future(self) -> IntoValue<T> {
        IntoValue(Some(self))
    }
}

/// Future of the value in a [`MaybeFuture`]. A value that is ready is returned at the first poll.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct IntoValue<T>(Option<MaybeFuture<T>>);

/// The value is never pinned.
impl<T> Unpin for IntoValue<T> {}

impl<T> Future for IntoValue<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(MaybeFuture::Future(future)) = &mut self.0 {
            return future.as_mut().poll(cx);
        }
        let Some(MaybeFuture::Ready(value)) = self.0.take() else { panic!("polled after completion") };
        Poll::Ready(value)
    }
}

impl<T: fmt::Debug> fmt::Debug for MaybeFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(value) => f.debug_tuple("Ready").field(value).finish(),
            Self::Future(_) => f.write_str("Future(..)"),
        }
    }
}
