// Package mirror is the front door of the process: it serves listeners, and puts the rooms behind
// them together.
//
// A [Listener] is the http.Handler of one address. It finds out what a request means, checks the
// rights, looks up the handler in one table from kind and method, and writes the line of the access
// log. The handlers are in pull and push. A [Mirror] is what all listeners share: the store of
// repositories, the checks, the jobs, the handlers, and the tasks that Run waits for. It knows no
// policy, and talks to no upstream itself.
//
// The composition root gives it what it hands on: the cache and the facts, the queue, and a
// function that takes events for notify. It shows the reports of pipeline.
//
// Invariants:
//   - Rights are checked before every answer, also before one that is sent again from memory.
//   - Work that serves more than the client that asked first runs on the Mirror's account, and Run
//     waits for it.
package mirror
