# Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never.
$payload = Get-Content -Raw -Path $env:payloadfile | ConvertFrom-Json
Write-Output "hello $($payload.name) from powershell"
Write-Output "cwd $(Get-Location)"
Set-Content -Path 'made by powershell ü.txt' -Value 'by powershell'
if ($payload.wait) {
    [Console]::Out.Write('waiting')
    Start-Sleep -Seconds 600
}
exit $payload.exit
