-- wrk script: reads each item once whose id is a line of the file args[1].
-- After the last id it requests an item that does not exist, which fails the measurement.
local ids

function init(args)
  ids = io.lines(args[1])
end

function request()
  return wrk.format("GET", "/items/" .. (ids() or "no-id-left"))
end
