package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Settings are the settings that a bucket should have for dray: a rule of its lifecycle, and the
// block of public access.
type Settings struct {
	at   Address
	api  *s3.Client
	conn *http.Transport
	days int32 // days after which objects expire; 0 means never
}

// abandonedDays is the number of days after which S3 deletes the parts of an upload that was not
// completed.
const abandonedDays = 1

// NewSettings returns the settings for a bucket whose objects expire at the age maxAge, rounded up
// to days. NewSettings sends no request.
func NewSettings(at Address, cfg aws.Config, maxAge time.Duration) *Settings {
	conn := transport()
	const day = 24 * time.Hour
	return &Settings{at: at, api: at.client(cfg, conn), conn: conn, days: int32((maxAge + day - 1) / day)}
}

// Close closes the connections that no request uses.
func (s *Settings) Close() { s.conn.CloseIdleConnections() }

// Reach checks that the bucket exists and can be listed. It changes nothing, and does not check the
// rights on objects.
func (s *Settings) Reach(ctx context.Context) error {
	_, err := s.api.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.at.Bucket})
	switch status := statusOf(err); status {
	case http.StatusNotFound:
		return fmt.Errorf("there is no bucket %s", s.at.Bucket)
	case http.StatusForbidden:
		return fmt.Errorf("the right s3:ListBucket on bucket %s is refused", s.at.Bucket)
	case http.StatusMovedPermanently:
		return fmt.Errorf("bucket %s is in another region than bucket.region", s.at.Bucket)
	}
	if err != nil {
		return fmt.Errorf("bucket %s: %w", s.at.Bucket, err)
	}
	return nil
}

// A Setting is one of the Settings of a bucket.
type Setting struct {
	// Name says what the setting is.
	Name string `json:"name"`
	// Missing says that the bucket did not have the setting.
	Missing bool `json:"missing"`
	// Written says that the setting was missing, and that Apply has written it.
	Written bool `json:"written"`
	// Unsupported says that the store does not support the setting. Missing is then false.
	Unsupported bool `json:"unsupported"`
}

// Apply reads the settings of the bucket. If mode is [Write], Apply also writes the missing
// settings, and leaves other rules of the lifecycle as they are.
func (s *Settings) Apply(ctx context.Context, mode Mode) ([]Setting, error) {
	lifecycle, err := s.lifecycle(ctx, mode)
	if err != nil {
		return nil, fmt.Errorf("lifecycle of bucket %s: %w", s.at.Bucket, err)
	}
	public, err := s.publicAccess(ctx, mode)
	if err != nil {
		return []Setting{lifecycle}, fmt.Errorf("block of public access of bucket %s: %w", s.at.Bucket, err)
	}
	return []Setting{lifecycle, public}, nil
}

// Mode says whether Apply changes a bucket.
type Mode bool

// The modes of Apply.
const (
	Check Mode = false
	Write Mode = true
)

func (s *Settings) lifecycle(ctx context.Context, mode Mode) (Setting, error) {
	prefix := s.at.Prefix + below
	set := Setting{Name: fmt.Sprintf("the lifecycle deletes parts of uploads below %s that were given up, and dray's rule in it deletes no objects", prefix)}
	if s.days > 0 {
		set.Name = fmt.Sprintf("the lifecycle deletes objects below %s after %d days, and parts of uploads that were given up", prefix, s.days)
	}
	now, err := s.api.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &s.at.Bucket})
	switch status := statusOf(err); {
	case status == http.StatusNotImplemented:
		set.Unsupported = true
		return set, nil
	case status == http.StatusNotFound && !absentBucket(err):
		now = &s3.GetBucketLifecycleConfigurationOutput{}
	case err != nil:
		return set, err
	}
	for i := range now.Rules {
		// A rule of the older form has its prefix outside of Filter. S3 refuses a lifecycle with rules of
		// both forms, and dray's rule has the newer form.
		if r := &now.Rules[i]; r.Filter == nil {
			//lint:ignore SA1019 S3 still sends it
			r.Filter, r.Prefix = &types.LifecycleRuleFilter{Prefix: r.Prefix}, nil
		}
	}
	id := "dray " + prefix
	expires, aborts, stale := s.days == 0, false, false
	for _, r := range now.Rules {
		covers := r.Status == types.ExpirationStatusEnabled && r.Filter.And == nil && r.Filter.Tag == nil &&
			r.Filter.ObjectSizeGreaterThan == nil && r.Filter.ObjectSizeLessThan == nil && strings.HasPrefix(prefix, aws.ToString(r.Filter.Prefix))
		var days int32
		if r.Expiration != nil {
			days = aws.ToInt32(r.Expiration.Days)
		}
		expires = expires || covers && days == s.days
		aborts = aborts || covers && r.AbortIncompleteMultipartUpload != nil
		stale = stale || aws.ToString(r.ID) == id && days > 0 && days != s.days // dray wrote this rule for another number of days
	}
	if set.Missing = !expires || !aborts || stale; !set.Missing || mode == Check {
		return set, nil
	}
	own := types.LifecycleRule{
		ID: &id, Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: &prefix},
		AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(abandonedDays)},
	}
	if s.days > 0 {
		own.Expiration = &types.LifecycleExpiration{Days: &s.days}
	}
	rules := slices.DeleteFunc(slices.Clone(now.Rules), func(r types.LifecycleRule) bool { return aws.ToString(r.ID) == id })
	_, err = s.api.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &s.at.Bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: append(rules, own)},
		TransitionDefaultMinimumObjectSize: now.TransitionDefaultMinimumObjectSize,
	})
	set.Written = err == nil
	return set, err
}

// absentBucket reports whether an error says that there is no such bucket.
func absentBucket(err error) bool {
	coded, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err)
	return ok && coded.ErrorCode() == "NoSuchBucket"
}

func (s *Settings) publicAccess(ctx context.Context, mode Mode) (Setting, error) {
	set := Setting{Name: "all public access is blocked"}
	now, err := s.api.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &s.at.Bucket})
	switch status := statusOf(err); {
	case status == http.StatusNotImplemented:
		set.Unsupported = true
		return set, nil
	case status == http.StatusNotFound && !absentBucket(err):
		now = &s3.GetPublicAccessBlockOutput{}
	case err != nil:
		return set, err
	}
	c := now.PublicAccessBlockConfiguration
	set.Missing = c == nil || !aws.ToBool(c.BlockPublicAcls) || !aws.ToBool(c.BlockPublicPolicy) || !aws.ToBool(c.IgnorePublicAcls) || !aws.ToBool(c.RestrictPublicBuckets)
	if !set.Missing || mode == Check {
		return set, nil
	}
	yes := aws.Bool(true)
	_, err = s.api.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &s.at.Bucket, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
		BlockPublicAcls: yes, BlockPublicPolicy: yes, IgnorePublicAcls: yes, RestrictPublicBuckets: yes,
	}})
	set.Written = err == nil
	return set, err
}
