-- Records that a member is alive, and removes members whose record has expired.
-- KEYS[1]: hash of the members. ARGV: member, its description, milliseconds until it expires.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + ARGV[3] * 1000) .. ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	if (tonumber(string.match(all[i + 1], '^(%d+) ') or 0)) < now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
