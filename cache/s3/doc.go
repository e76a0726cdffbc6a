// Package s3 keeps blobs in a bucket of Amazon S3, or of a store with the same API, which several
// mirrors share. It is a [cache.Tier].
//
// Blobs are written behind: [Bucket.Keep] puts a digest into a bounded queue, and a few workers
// copy the blobs from disk. They read the file as it is sent, so the size of a blob does not matter
// for memory. Each blob is an object named by its digest below cache/. An object is written once:
// the write of a second mirror fails by If-None-Match, which counts as success. dray never lists
// the bucket and never deletes an object: a rule of the bucket's lifecycle expires them, and dray
// writes an object again before that if clients still ask for it.
//
// Reads and writes have a breaker each. While a breaker is open, Open fails at once, and the
// writers wait.
package s3
