// Package mirror serves the requests of the listeners, and connects the packages below it, which
// are called rooms.
//
// A [Listener] is the http.Handler of one address. It parses and routes a request, and finds the
// handler in one table by the request's kind and method. It checks the caller's rights, calls the
// handler, and writes the line of the access log. The handlers, except that of /v2/, are in the
// rooms pull and push. A [Mirror] is everything that the listeners share: the store of
// repositories, the checks, the jobs, the handlers, and the background tasks. The rights are not
// part of a Mirror, because each Listener has its own policy. A Mirror sends no requests to
// upstreams itself.
//
// The program (cmd/dray) passes in the cache, the facts, the queue, and a function that receives
// events (package notify). From [Mirror.Reports], it gets the newest reports on checked pushes.
//
// Invariants:
//   - The rights are checked before a handler is called and before an answer is repeated from
//     memory. Only the report on a push needs no rights. On a listener that accepts pushes, every
//     client that knows the ID of the report may read it. The ID cannot be guessed.
//   - If several clients may wait for the same work, it runs in a task of the Mirror. So the work
//     goes on when the client that started it disconnects. [Mirror.Run] waits for the tasks.
package mirror
