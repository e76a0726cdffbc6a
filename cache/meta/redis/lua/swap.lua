-- KEYS: some keys to write, then those that were seen. ARGV: how many are to be written; for each of
-- them its value and its milliseconds (0: for ever, less: to be removed); for each that was seen "="
-- and its value, or nothing if there was none. Returns 0 if one that was seen has changed.
local n = tonumber(ARGV[1])
for i = n + 1, #KEYS do
	local v = redis.call('GET', KEYS[i])
	if (v and '=' .. v or '') ~= ARGV[1 + n + i] then return 0 end
end
for i = 1, n do
	local ttl = tonumber(ARGV[2 * i + 1])
	if ttl > 0 then
		redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ttl)
	elseif ttl == 0 then
		redis.call('SET', KEYS[i], ARGV[2 * i])
	else
		redis.call('DEL', KEYS[i])
	end
end
return 1
