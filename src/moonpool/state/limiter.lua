-- The rules of asks.py and memory.py inside the store, where many processes meet: one call does everything that a
-- process has to ask at this moment, in order, and nobody else gets in between.
--
-- ARGV[1]  what all names begin with
-- ARGV[2]  seconds a lease lives
-- ARGV[3]  the time (s); "" for the store's own clock, which is the only one that all processes share
-- ARGV[4]  the operations: msgpack, a list of lists
-- Gives msgpack: a list with one answer for each operation.
--
--   {1, request, account, key, concurrency of both, requests of both, tokens of both, tokens}   take
--      -> {number of what was refused, ms to wait, when the lease ends, and of the tighter rate of requests and of
--          tokens: limit (0: none), what remains, ms until it is full}
--   {2, request, account, key ("" if it limits nothing), tokens of both, taken, used}           give  -> 0
--   {3, request, account, key ("" without a lease), when it ends}     renew -> when it ends now; 0: it had ended
--   {4, node, seconds}                                                   here I am     -> {nodes, my rank}
--   {5, node}                                                            I leave       -> 0
--   {6, account}                                                         held          -> how many
--   {7, request, account, concurrency}       take where no more is limited -> when the lease ends; 0: all are taken
--   {8, request, account}                            give back a place and nothing else -> 0
--
-- Kept: a sorted set for the leases of each account and key, by when they end; for each rate "used at" (see asks.py);
-- a sorted set of the nodes. All of it may be lost: leases come back when they are renewed, rates begin anew.

local prefix, lease_s, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local now_ms = math.floor(now * 1000 + 0.5)
local UNIT = 60000
local FORGET_S = 120

-- Within a call time stands still and nobody else gets in: who still lives is counted once for each owner, and each set
-- is kept from being forgotten once.
local counted, kept = {}, {}

local function living(owner)
  local name = prefix .. owner
  if not counted[name] then
    redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
    counted[name] = redis.call('ZCARD', name)
  end
  return name, counted[name]
end

local function leased(name, made)
  if counted[name] then counted[name] = counted[name] + made end
  if not kept[name] then
    redis.call('EXPIRE', name, FORGET_S)
    kept[name] = true
  end
end

local function lease(name, request, ends)
  leased(name, redis.call('ZADD', name, ends, request))
end

local function release(name, request)
  local gone = redis.call('ZREM', name, request)
  if counted[name] then counted[name] = counted[name] - gone end
  -- An empty set does not exist, and the next one of its name is another.
  if counted[name] == nil or counted[name] == 0 then kept[name] = nil end
  return gone == 1
end

local function used_now(name, rate)
  local kept = redis.call('GET', name)
  if not kept then return 0 end
  local used, at = string.match(kept, '^(%d+) (%d+)$')
  return math.max(0, tonumber(used) - math.max(0, now_ms - tonumber(at)) * rate)
end

local function keep(name, used, rate)
  local value = string.format('%.0f %.0f', used, now_ms)
  redis.call('SET', name, value, 'EX', math.ceil(used / rate / 1000) + FORGET_S)
end

local function tighter(one, name, rate)
  local used = used_now(name, rate)
  local other = {rate, math.max(0, math.floor((rate * UNIT - used) / UNIT)), math.ceil(used / rate)}
  if one and one[2] <= other[2] then return one end
  return other
end

local function take(op)
  local request, account, key, tokens = op[2], op[3], op[4], op[11]
  local of_account, running = living('l:a:' .. account)
  local of_key, running_of_key
  if op[6] > 0 then of_key, running_of_key = living('l:k:' .. key) end
  local rates = {}
  local function rate(number, name, limit, amount)
    if limit > 0 then rates[#rates + 1] = {number, prefix .. name, limit, amount} end
  end
  rate(3, 'r:a:' .. account, op[7], 1)
  rate(4, 'r:k:' .. key, op[8], 1)
  rate(5, 't:a:' .. account, op[9], tokens)
  rate(6, 't:k:' .. key, op[10], tokens)
  local refused, wait_ms = 0, 0
  local ends = tonumber(redis.call('ZSCORE', of_account, request) or 0)
  if ends == 0 then
    local function refuse(number, ms)
      if refused == 0 then refused = number end
      wait_ms = math.max(wait_ms, ms)
    end
    if op[5] > 0 and running >= op[5] then refuse(1, 1000) end
    if of_key and running_of_key >= op[6] then refuse(2, 1000) end
    for _, each in ipairs(rates) do
      local over = used_now(each[2], each[3]) + (math.min(each[4], each[3]) - each[3]) * UNIT
      if over > 0 then refuse(each[1], math.ceil(over / each[3])) end
    end
    if refused == 0 then
      ends = now + lease_s
      lease(of_account, request, ends)
      if of_key then lease(of_key, request, ends) end
      for _, each in ipairs(rates) do
        keep(each[2], used_now(each[2], each[3]) + each[4] * UNIT, each[3])
      end
    end
  end
  if #rates == 0 then return {refused, wait_ms, ends} end
  local requests, used = nil, nil
  for _, each in ipairs(rates) do
    if each[1] < 5 then requests = tighter(requests, each[2], each[3])
    else used = tighter(used, each[2], each[3]) end
  end
  requests, used = requests or {0, 0, 0}, used or {0, 0, 0}
  return {refused, wait_ms, ends, requests[1], requests[2], requests[3], used[1], used[2], used[3]}
end

local function take_place(op)
  local name, running = living('l:a:' .. op[3])
  if running < op[4] then
    local ends = now + lease_s
    if redis.call('ZADD', name, 'NX', ends, op[2]) == 1 then
      leased(name, 1)
      return ends
    end
  end
  return tonumber(redis.call('ZSCORE', name, op[2]) or 0)  -- who has it already has it
end

local function give_place(op)
  release(prefix .. 'l:a:' .. op[3], op[2])
  return 0
end

local function give(op)
  local lived = release((living('l:a:' .. op[3])), op[2])
  if op[4] ~= '' then release(prefix .. 'l:k:' .. op[4], op[2]) end
  local function correct(kind, owner, rate)
    if lived and rate > 0 then
      local bucket = prefix .. kind .. owner
      keep(bucket, math.max(0, used_now(bucket, rate) + (op[8] - op[7]) * UNIT), rate)
    end
  end
  correct('t:a:', op[3], op[5])
  correct('t:k:', op[4], op[6])
  return 0
end

local function renew(op)
  local of_account = prefix .. 'l:a:' .. op[3]
  local ends = 0
  if op[5] > now then
    ends = now + lease_s
    lease(of_account, op[2], ends)
    if op[4] ~= '' then lease(prefix .. 'l:k:' .. op[4], op[2], ends) end
  else
    release(of_account, op[2])
    if op[4] ~= '' then release(prefix .. 'l:k:' .. op[4], op[2]) end
  end
  return ends
end

local function here(op)
  local name = living('nodes')
  redis.call('ZADD', name, now + op[3], op[2])
  redis.call('EXPIRE', name, FORGET_S)
  local nodes, rank = redis.call('ZRANGE', name, 0, -1), 0
  for _, node in ipairs(nodes) do
    if node < op[2] then rank = rank + 1 end
  end
  -- What only others of these operations do: a user who may not hears of it here, within RENEW_S, not when first a
  -- request has a rate.
  redis.call('ZREM', name, '')
  redis.call('ZSCORE', name, op[2])
  redis.call('SET', prefix .. 'may', '', 'EX', 1)
  redis.call('GET', prefix .. 'may')
  return {#nodes, rank}
end

local function leave(op)
  redis.call('ZREM', prefix .. 'nodes', op[2])
  return 0
end

local function held(op)
  local _, running = living('l:a:' .. op[2])
  return running
end

local verbs = {take, give, renew, here, leave, held, take_place, give_place}
local answers = {}
for at, op in ipairs(cmsgpack.unpack(ARGV[4])) do
  answers[at] = verbs[op[1]](op)
end
return cmsgpack.pack(answers)
