// Package gate checks a push before its manifest is forwarded. The checks are a pipeline that the
// operator configured for the repository.
//
// Package pipeline has the checks, and stores their results for each layer. Package gate runs them
// for pushes. It scans most layers while clients send them, and other layers when the manifest
// arrives. It makes one verdict for all concurrent pushes of a manifest to the same reference by
// the same user. It stops waiting for the verdict before the client gives up ([Push].Within). It
// stores the reports, and sends events (package notify). For the verdict, it reads the content of a
// push only through [pipeline.Contents].
package gate
