// Package gate checks a push before it is forwarded, with the pipeline that the operator configured
// for its repository.
//
// Package pipeline has the checks, and remembers what they found in a layer. This package knows
// pushes. It scans a layer while the client sends it, makes one verdict for all clients that push
// the same manifest, waits for the verdict as long as the client does, keeps the reports, and sends
// events (notify). It reads the content of a push only through [pipeline.Contents].
package gate
