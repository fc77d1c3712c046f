// The bittorrent-tracker server as a program of its own, until SIGTERM.
//
//   node tracker.mjs NODE_MODULES ADDRESS PORT
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, address, port] = process.argv.slice(2)

// The package's main file also imports its WebRTC client, whose native module is not installed.
const { default: Server } = await import(
  pathToFileURL(path.join(modules, 'bittorrent-tracker', 'server.js')).href
)

const server = new Server({ http: true, udp: true, ws: false, stats: false, trustProxy: false })
server.on('error', (error) => { console.error(error); process.exit(1) })
server.on('warning', (error) => console.error(error.message))
server.on('listening', () => console.log('listening'))
for (const event of ['start', 'complete', 'update', 'stop']) {
  server.on(event, (peer) => console.log(event, peer))
}
server.listen(Number(port), { http: address, udp4: address })

process.on('SIGTERM', () => process.exit(0))
