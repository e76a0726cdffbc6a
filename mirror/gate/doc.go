// Package gate checks a push before its manifest is forwarded. The checks are a pipeline that the
// operator configured for the repository.
//
// Package pipeline has the checks, and stores their results for each layer. Package gate runs them
// for pushes. It scans a layer while the client sends the layer. It makes one verdict for all
// concurrent pushes of a manifest to the same reference by the same user. It waits for the verdict
// no longer than the client waits for its answer. It stores the reports, and sends events (package
// notify). It reads the content of a push only through [pipeline.Contents].
package gate
