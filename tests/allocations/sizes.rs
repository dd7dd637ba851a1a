//! Sizes of responses: each move of a larger one costs more.

use std::{convert::Infallible, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tollgate::{CircuitBreakerLayer, Gates, Rate, TokenBucketLayer};
use tower::{Layer, Service, service_fn};

/// Two words, as the body of axum.
type Boxed = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;

fn size_behind<L>(layer: L) -> usize
where
    L: Layer<tower::util::BoxCloneService<Request<()>, Response<Boxed>, Infallible>, Service: Service<Request<()>>>,
{
    fn response<S: Service<Request<()>>>(_: &S) -> usize {
        size_of::<S::Response>()
    }
    let inner =
        service_fn(async |_: Request<()>| -> Result<Response<Boxed>, Infallible> { unreachable!("not called") });
    response(&layer.layer(tower::util::BoxCloneService::new(inner)))
}

#[test]
fn response_has_no_room_for_permits_that_end_at_the_head() {
    let bucket = || TokenBucketLayer::new(Rate::per_second(5));
    let bare = size_of::<Response<Boxed>>();
    assert_eq!(size_behind(bucket()), bare);
    let nested = size_behind(tower::layer::layer_fn(|inner| bucket().layer(bucket().layer(bucket().layer(inner)))));
    assert_eq!(nested, bare + 8, "three are no larger than two");
    assert_eq!(size_behind(Gates::new((bucket(), bucket().named("second"), bucket().named("third")))), bare);
    assert_eq!(size_behind(CircuitBreakerLayer::for_server()), bare + 32);
}
