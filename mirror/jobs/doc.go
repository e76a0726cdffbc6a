// Package jobs does background work for images: it attaches verdicts to their images at the
// registry, records base images, and sends the requests that keep images alive.
//
// When a client pulls or pushes, mirror/pull or mirror/push calls observers here, such as
// [KeepAlive.Pulled]. An observer sends no request itself: at most it writes a fact. The jobs find
// images through the package repository, read the cache, store their facts in cache/meta, and send
// their requests with a lower priority than the requests of clients.
package jobs
