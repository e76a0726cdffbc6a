package bucket

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"dray/cache/s3"
	"dray/cmd/dray/config"
)

// Look reads the settings of the bucket of a configuration. It changes nothing. missingNames lists
// the settings that the bucket should have and does not have. unsupportedNames lists the settings
// that the store does not support. accessErr says why the bucket cannot be used, and readErr says
// why its settings cannot be read.
func Look(ctx context.Context, c config.Bucket, cfg aws.Config) (missingNames, unsupportedNames []string, accessErr, readErr error) {
	settings := s3.NewSettings(address(c), cfg, c.MaxAge.Std())
	defer settings.Close()
	if err := settings.Reach(ctx); err != nil {
		return nil, nil, err, nil
	}
	all, err := settings.Apply(ctx, s3.Check)
	for _, s := range all {
		if s.Missing {
			missingNames = append(missingNames, s.Name)
		}
		if s.Unsupported {
			unsupportedNames = append(unsupportedNames, s.Name)
		}
	}
	return missingNames, unsupportedNames, nil, err
}
