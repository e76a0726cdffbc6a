// Package s3 stores blobs in a bucket that several mirrors share. The bucket is in Amazon S3, or in
// a store with the same API. [Bucket] is a [cache.Tier].
//
// Blobs are written in the background: [Bucket.Keep] puts a digest into a bounded queue, and a few
// workers copy the blobs from disk. They read a file while they send it, so a large blob needs no
// more memory than a small one. Each blob is an object below cache/, named by its digest. If two
// mirrors write an object that the bucket lacks, the second write fails because of If-None-Match,
// and counts as a success. dray neither lists the bucket nor deletes objects: a rule of the
// bucket's lifecycle deletes old objects. If clients still ask for a blob, dray writes its object
// again before the rule deletes it.
//
// Reads and writes have a breaker each. While the breaker for reads is open, Open fails at once.
// While the breaker for writes is open, the workers wait.
package s3
