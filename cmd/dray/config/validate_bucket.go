package config

import (
	"net/url"
	"regexp"
	"strings"
	"time"
)

// bucketName matches the names of buckets
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html).
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// maxBucketTimeout is the longest bucket.timeout. Clients wait 30 s for an answer, and after the
// bucket has been too slow, the upstream needs some of this time.
const maxBucketTimeout = Duration(10 * time.Second)

// Place returns the name of the bucket and the prefix of its keys, which is empty or ends in a
// slash. ok is false if the URL does not name a bucket.
func (b Bucket) Place() (name, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(b.URL, "s3://")
	name, prefix, _ = strings.Cut(rest, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return name, prefix, ok && bucketName.MatchString(name) && !strings.ContainsAny(prefix, "?#")
}

// validate reports problems of the bucket. stall bounds how long the cache waits for the next byte
// of the bucket or of an upstream.
func (b Bucket) validate(k *Report, path string, stall Duration) {
	if b.Timeout <= 0 || b.Timeout > maxBucketTimeout {
		k.Add(path+".timeout", "%v is not between 0s and %v; pulls wait for it", b.Timeout, maxBucketTimeout)
	}
	if b.MaxAge < 0 {
		k.Add(path+".max_age", "is negative; use 0 for objects that do not expire")
	}
	if b.URL == "" {
		b.MaxAge, b.Timeout = 0, 0
		if b != (Bucket{}) {
			k.Add(path+".url", "is missing; without it, dray uses no bucket")
		}
		return
	}
	if stall > 0 && b.Timeout >= stall {
		k.Add(path+".timeout", "%v is not shorter than cache.stall_timeout, %v, after which dray gives up waiting for bytes", b.Timeout, stall)
	}
	if _, _, ok := b.Place(); !ok {
		k.Add(path+".url", "is not the URL of a bucket; write s3://NAME or s3://NAME/PREFIX") // the URL is not printed, because it may contain a key
	}
	if b.Endpoint != "" {
		u, err := url.Parse(b.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			k.Add(path+".endpoint", "is not a URL such as https://s3.example.com; credentials come from the AWS configuration")
		}
	}
	if b.RoleARN != "" && !strings.HasPrefix(b.RoleARN, "arn:") {
		k.Add(path+".role_arn", "%q is not an ARN", b.RoleARN)
	}
}
