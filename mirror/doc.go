// Package mirror is the front door: listeners with a role, routes, pulls, pushes
// and upload sessions.
//
// It is where the cache, which has never heard of the protocol, and the upstreams,
// which have never heard of the cache, meet. One Mirror is shared by all listeners
// of a process; a Listener is the http.Handler of one of them.
//
// Invariants:
//   - bytes are shared by all repositories, visibility is not: a digest is served
//     to a repository only when a manifest that came through it references the
//     digest, or when the upstream vouches for it;
//   - a failing cache or metadata store costs a question to the upstream, never a
//     pull; an upstream that fails is never answered as "not found";
//   - a push is acknowledged when the upstream has accepted the manifest, and a
//     blob is called present only when it is held for this push or known at the
//     target;
//   - what is answered again without reading facts has a lease on them, and rights
//     are checked before every answer;
//   - work that serves more than the client who asked first runs on the Mirror's
//     account and is waited for by Run.
package mirror
