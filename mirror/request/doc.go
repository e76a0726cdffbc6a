// Package request has the [Request], a client's request under way. A Request has the client
// (package identity), the repository, the settings of the listener, and the answer (package wire).
// Package route finds the name of the repository. Package repository finds the content.
//
// A handler gets a [Request], so it need not import package mirror, which calls the handler.
package request
