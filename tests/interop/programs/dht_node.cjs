// A node of npm's bittorrent-dht as a program of its own, until SIGTERM.
//
//   node dht_node.cjs NODE_MODULES PORT BOOTSTRAP_PORT ANNOUNCED_HASH ANNOUNCED_PORT WANTED_HASH...
//
// Prints "ready", "announced", and "peer HASH HOST:PORT" for everybody it finds; looks again every
// two seconds.
const path = require('path')

const [modules, port, bootstrap, announced, announcedPort, ...wanted] = process.argv.slice(2)

async function main () {
  const { Client } = await import(
    'file://' + path.join(modules, 'bittorrent-dht', 'index.js'))
  const dht = new Client({ bootstrap: ['127.0.0.1:' + bootstrap], verify: () => false })
  const fail = (error) => { if (error) console.error(error.message) }
  dht.on('error', fail)
  dht.on('peer', (peer, hash) => {
    console.log('peer', hash.toString('hex'), peer.host + ':' + peer.port)
  })
  dht.listen(Number(port), '127.0.0.1')
  await new Promise((resolve) => dht.once('ready', resolve))
  console.log('ready')
  await new Promise((resolve) => dht.announce(announced, Number(announcedPort), resolve))
  console.log('announced')
  const look = () => wanted.forEach((hash) => dht.lookup(hash, fail))
  look()
  setInterval(look, 2000)
}

process.on('SIGTERM', () => process.exit(0))
main()
