// Package mirror is the front door of the process. It serves the requests of the listeners, and
// connects the packages below it, which are called rooms.
//
// A [Listener] is the http.Handler of one address. It parses and routes a request, checks the
// caller's rights, finds the handler in one table by kind and method, and writes the line of the
// access log. The handlers are in the rooms pull and push. A [Mirror] is everything that the
// listeners share: the store of repositories, the checks, the jobs, the handlers, and the
// background tasks. It contains no policy, and sends no requests to upstreams itself.
//
// The program (cmd/dray) passes in the cache, the facts, the queue, and a function that receives
// events for notify. A Mirror also returns the newest reports on checked pushes.
//
// Invariants:
//   - Rights are checked before every answer, including an answer repeated from memory.
//   - Work that serves more clients than the one that asked first runs in a task of the Mirror,
//     and Run waits for it.
package mirror
